"""The SQLite store under kill -9, under writers of one session, and with damaged bytes.

    python tests/benchmarks/store_crash.py --rounds 300 --turns 200 --flips 1000

Every round starts four processes that append, fork and forget, and kills them with SIGKILL after a random number of
acknowledged saves; then every acknowledged turn must be there and every chain must verify.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.store_writers import crash_round, filled, flip, race_round


def crashes(folder: Path, rounds: int, seed: int) -> str:
    random, saves = Random(seed), 0
    for number in range(rounds):
        saves += crash_round(folder / f"crash-{number // 25}.db", random)  # 25 rounds go on in one file
    return f"kill -9: {rounds} rounds of 4 writers, {saves:,} acknowledged saves, none lost, every chain verifies"


def races(folder: Path, turns: int) -> str:
    accepted, refused = race_round(folder / "race.db", 8, turns)
    return f"race: 8 processes, {8 * turns:,} turns: {accepted:,} in, {refused:,} refused with both tips, none vanished"


def flips(folder: Path, count: int, seed: int) -> str:
    path, random = folder / "flips.db", Random(seed)
    told = filled(path)
    whole = path.read_bytes()
    found = Counter(flip(path, whole, random, told) for _ in range(count))
    return f"flips: {count:,} of {len(whole):,} bytes: {dict(sorted(found.items()))}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    for name, default in (("rounds", 300), ("turns", 200), ("flips", 1_000), ("seed", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, begun = Path(name), time.perf_counter()
        print(flips(folder, asked.flips, asked.seed), flush=True)
        print(races(folder, asked.turns), flush=True)
        print(crashes(folder, asked.rounds, asked.seed), flush=True)
        print(f"in {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
