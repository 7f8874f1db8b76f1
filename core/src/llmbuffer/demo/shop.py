"""The shop of the demo: six tools that answer from a few records, the same every time."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

__all__ = ["Passage", "Shop", "passages_of"]

Record = Mapping[str, Any]


class Passage(NamedTuple):
    """A passage of the handbook."""

    id: str
    title: str
    text: str

    @property
    def shown(self) -> str:
        """The passage as retrieval puts it into a prompt."""
        return f"[{self.id}] {self.title}\n{self.text}"


def passages_of(handbook: str) -> dict[str, Passage]:
    r"""The passages of a handbook in Markdown, by id.

    >>> passages_of("# HB-1 Decaf\nRoasted on Wednesdays.")
    {'HB-1': Passage(id='HB-1', title='Decaf', text='Roasted on Wednesdays.')}
    """
    found = re.findall(r"^# (\S+) (.+)\n((?:(?!# ).+\n?)+)", handbook, re.MULTILINE)
    return {name: Passage(name, title, text.strip()) for name, title, text in found}


class Shop:
    """Answers tool calls. ``records``: what the shop knows; ``handbook``: its passages by id.

    >>> from llmbuffer.demo.script import shop
    >>> print(shop().answer("check_stock", {"skus": ["SC-012"]}))
    sku | article | price today | Eastmarch | Port Callow | Hollin Vale | next delivery
    SC-012 | Scale with timer, 2 kg | 59.00 | 13 | 6 | 0 | 2026-05-22
    Of the same kind:
    DK-310 | Drift pouring kettle, 0.9 litres | 79.00 | 22 | 0 | 5 | 2026-05-19
    """

    def __init__(self, records: Record, handbook: Mapping[str, Passage]) -> None:
        self._records = records
        self._handbook = handbook
        self._tools: dict[str, Callable[..., Any]] = {
            "find_customer": self._find_customer,
            "get_order": self._get_order,
            "track_parcel": self._track_parcel,
            "search_handbook": self._search_handbook,
            "check_stock": self._check_stock,
            "open_case": self._open_case,
        }

    def answer(self, tool: str, arguments: Mapping[str, Any], mark: str = "") -> str:
        """What a tool returns, as text.

        ``mark`` is what the arguments do not tell: ``later`` reads a record as it stands at the end of the session, and a
        new case takes it as its reference. Raises ``KeyError`` for what the shop does not know.
        """
        found = self._tools[tool](mark, **arguments)
        return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)

    def _record(self, kind: str, number: str, mark: str = "") -> Record:
        record: Record = self._records[kind][f"{number}/{mark}" if mark else number]
        return record

    def _find_customer(self, mark: str, customer_number: str, include: Sequence[str] = ()) -> Record:
        record = self._record("customers", customer_number, mark)
        parts: dict[str, Callable[[Any], Record]] = {
            "orders": _order_line,
            "subscriptions": dict,
            "cases": _case_line,
        }
        lists = {part: [parts[part](each) for each in record[part]] for part in include}
        depot = record["account"]["depot"]
        return {
            "customer_number": customer_number,
            **record["account"],
            "depot": {"name": depot, **self._record("depots", depot)},
            "wishes": record["wishes"],
            "last_contacts": record["contacts"],
            **lists,
        }

    def _get_order(self, mark: str, order_number: str, include: Sequence[str] = ()) -> Record:
        order = self._record("orders", order_number, mark)
        parts: dict[str, Callable[[Record], Any]] = {
            "shipments": self._shipments,
            "payments": _payments,
            "invoice": _invoice,
        }
        subtotal = sum(quantity * price for _, quantity, price, _ in order["lines"])
        off = order["discount"]
        return {
            "order_number": order_number,
            "customer_number": order["customer"],
            "placed": order["placed"],
            "status": order["status"],
            "items": [self._item(order, *line) for line in order["lines"]],
            "subtotal": _euros(subtotal),
            "discount": None if off is None else {"name": off[0], "amount": _euros(off[1])},
            "shipping": _euros(0),
            "total": _euros(subtotal - (off[1] if off else 0)),
            "currency": "EUR",
            "notes": order["notes"],
            **{part: parts[part](order) for part in include},
        }

    def _item(self, order: Record, sku: str, quantity: int, price: int, parcel: str) -> Record:
        product = self._record("products", sku)
        delivered = order.get("delivered") or self._delivered(parcel)
        covered = product["warranty"] if delivered else 0
        return {
            "sku": sku,
            "name": product["name"],
            "quantity": quantity,
            "unit_price": _euros(price),
            "total": _euros(quantity * price),
            "warranty_until": _months_later(delivered, covered) if covered else None,
            **({"serial": order["serial"]} if "serial" in order else {}),
        }

    def _delivered(self, parcel: str) -> str | None:
        last, _, scan = self._records["parcels"].get(parcel, {"scans": [("", "", "")]})["scans"][-1]
        return f"{self._records['day'][:4]}-{last[:5]}" if scan == "door" else None

    def _shipments(self, order: Record) -> list[Record]:
        boxes = dict.fromkeys(parcel for *_, parcel in order["lines"])
        return [self._shipment(order, parcel) for parcel in boxes]

    def _shipment(self, order: Record, parcel: str) -> Record:
        holds = [f"{quantity} x {sku}" for sku, quantity, _, box in order["lines"] if box == parcel]
        if parcel not in self._records["parcels"]:
            return {"parcel": parcel, "delivered": order["delivered"], "holds": holds}
        record = self._record("parcels", parcel)
        time, _, scan = record["scans"][-1]
        last = f"{time}, {self._records['scans'][scan]}"
        return {"parcel": parcel, "announced": record["announced"], "last_scan": last, "holds": holds}

    def _track_parcel(self, mark: str, parcel_number: str, events: str = "all") -> Record:
        record = self._record("parcels", parcel_number, mark)
        scans = [
            {
                "time": f"{self._records['day'][:4]}-{time}",
                "place": place,
                "event": self._records["scans"][scan],
            }
            for time, place, scan in record["scans"]
        ]
        return {
            "parcel_number": parcel_number,
            "carrier": "Northway Parcel",
            "service": record["service"],
            "weight_kg": record["kg"],
            "recipient": record["to"],
            "announced_for": record["announced"],
            "wish_on_label": record.get("wish", "none"),
            "scans": len(scans),
            "events": scans[-1:] if events == "latest" else scans,
            "outlook": self._records["outlook"][record["scans"][-1][2]],
        }

    def _search_handbook(self, _mark: str, query: str, limit: int = 2) -> Record:
        stems = {word[:5] for word in re.findall(r"\w{4,}", query.lower())}
        ranked = sorted(self._handbook.values(), key=lambda passage: -_score(passage, stems))
        results = [
            {"id": passage.id, "score": _score(passage, stems), "title": passage.title, "text": passage.text}
            for passage in ranked[:limit]
        ]
        return {"query": query, "passages": len(self._handbook), "results": results}

    def _check_stock(self, _mark: str, skus: Sequence[str]) -> str:
        lines = ["sku | article | price today | Eastmarch | Port Callow | Hollin Vale | next delivery"]
        lines += map(self._stock_row, skus)
        families = {self._record("products", sku)["family"] for sku in skus}
        akin = [
            sku
            for sku, product in self._records["products"].items()
            if product["family"] in families and sku not in skus
        ]
        if akin and len(skus) < 4:
            lines += ["Of the same kind:", *map(self._stock_row, akin)]
        return "\n".join(lines)

    def _stock_row(self, sku: str) -> str:
        product = self._record("products", sku)
        cells = [sku, product["name"], _euros(product["price"]), *map(str, product["depots"])]
        return " | ".join([*cells, product["next"] or "none planned"])

    def _open_case(
        self,
        mark: str,
        kind: str,
        subject: str,
        reason: str,
        skus: Sequence[str] = (),
        amount: float | None = None,
        note: str | None = None,
    ) -> Record:
        status, rule, steps, queue, told = self._records["kinds"][kind]
        today = date.fromisoformat(self._records["day"])
        return {
            "reference": mark,
            "opened": self._records["day"],
            "kind": kind,
            "subject": subject,
            "status": status,
            "decided_under": f"policy {rule}",
            "articles": [{"sku": sku, "name": self._record("products", sku)["name"]} for sku in skus],
            "amount": None if amount is None else f"{amount:.2f} EUR",
            "reason": reason,
            "note": note,
            "queue": queue,
            "next": [{"step": step, "by": str(_working_day(today, days))} for step, days in steps],
            "message_to_customer": told,
        }


def _order_line(line: Sequence[Any]) -> Record:
    number, placed, status, total = line
    return {"order_number": number, "placed": placed, "status": status, "total": _euros(total)}


def _case_line(line: Sequence[Any]) -> Record:
    reference, about, status, due = line
    return {"reference": reference, "about": about, "status": status, "due": due}


def _payments(order: Record) -> list[Record]:
    return [{"way": way, "amount": _euros(cents)} for way, cents in order["paid"]]


def _invoice(order: Record) -> Record:
    number, holder = order["invoice"]
    return {"number": number, "made_out_to": holder, "issued": order["placed"][:10], "status": "valid"}


def _euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def _months_later(day: str | None, months: int) -> str | None:
    if day is None:
        return None
    year, month, rest = int(day[:4]), int(day[5:7]) - 1 + months, day[8:]
    return f"{year + month // 12}-{month % 12 + 1:02d}-{rest}"


def _working_day(day: date, ahead: int) -> date:
    while ahead:
        day += timedelta(days=1)
        ahead -= day.weekday() < 5
    return day


def _score(passage: Passage, stems: set[str]) -> float:
    """The share of the stems that the passage holds; in its title they count three times."""
    title, text = ({word[:5] for word in re.findall(r"\w{4,}", part.lower())} for part in passage[1:])
    return round((3 * len(stems & title) + len(stems & text)) / (4 * len(stems) or 1), 2)
