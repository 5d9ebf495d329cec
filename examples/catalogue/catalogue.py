"""A product catalogue as a module with one service. `deploy.yml` puts it on a node.

The configuration (`catalogue.yaml.j2` is its template) is named by the environment variable
CATALOGUE_CONFIG, or by the first argument.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from search import Index

from llmagentos import Module, Service


@dataclass(frozen=True)
class Product:
    """One product as a customer should see it."""

    sku: str
    name: str
    category: str
    price: str  # with the currency
    stock: int
    description: str


class CatalogueService(Service):
    """Finds products by what people ask."""

    def __init__(self, data: Path, *, currency: str, max_results: int) -> None:
        with data.open(encoding="utf-8", newline="") as file:
            self._rows = list(csv.DictReader(file))
        self._currency = currency
        self._max_results = max_results
        self._index = Index([_texts(row) for row in self._rows])

    def search(self, query: str) -> list[Product]:
        """The products that a question is about, best first; none when the catalogue has nothing like it.

        A question in Chinese gets the Chinese texts.
        """
        chinese = re.search("[\u4e00-\u9fff]", query) is not None
        found = self._index.search(query)[: self._max_results]
        return [self._product(self._rows[position], "_zh" if chinese else "") for position in found]

    def find_product(self, name: str) -> Product:
        """The product with this name (or one that comes closest to it)."""
        found = self.search(name)
        if not found:
            raise LookupError(f"no product is called {name!r}")
        return found[0]

    def _product(self, row: dict[str, str], language: str) -> Product:
        return Product(
            sku=row["sku"],
            name=row["name" + language],
            category=row["category" + language],
            price=f"{row['price']} {self._currency}",
            stock=int(row["stock"]),
            description=row["description" + language],
        )


def _texts(row: dict[str, str]) -> dict[str, float]:
    """What a product is found by, and how much each text counts."""
    return {
        row["sku"]: 4.0,
        row["name"]: 3.0,
        row["name_zh"]: 3.0,
        row["category"]: 1.5,
        row["category_zh"]: 1.5,
        row["description"]: 1.0,
        row["description_zh"]: 1.0,
    }


def main(config: Path) -> None:
    """Serve until told to stop."""
    settings = yaml.safe_load(config.read_text("utf-8"))
    service = CatalogueService(
        config.parent / settings["data"], currency=settings["currency"], max_results=settings["max_results"]
    )
    module = Module("catalogue")
    module.register_service(service, name="catalogue")
    module.start()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else os.environ["CATALOGUE_CONFIG"]))
