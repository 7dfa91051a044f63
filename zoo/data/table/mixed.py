"""Your own tables of mixed columns: CSV and Parquet."""

from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from zoo.core.cache import user_path
from zoo.core.errors import DataError
from zoo.core.registry import register
from zoo.core.signature import PositiveInt
from zoo.data.table.csv_file import read_table
from zoo.data.table.rows import Rows, Texts
from zoo.data.text.overlap import warn_of_shared
from zoo.data.text.records import import_pyarrow


@register("data", "mixed_table")
class MixedTable(Rows):
    """Your own table of numbers, categories and dates with missing values: data=mixed_table data.path=FILE.csv.

    CSV needs a first line with the names of the columns; .parquet needs the extra `parquet`. The console shows the
    inferred types. Whole numbers of at most ten values are categories, and texts that differ in every row are a key.
    Empty fields, NaN, NA, N/A, null and ? are missing.

    Args:
        path: file of values that are separated by commas, semicolons, tabs or vertical bars, or a Parquet file.
        types: types where the inferred one is wrong, such as [rooms:number,code:key]; also category and date.
        columns: columns to learn; null is every column.
        target: column that a classifier or regression predicts in `zoo evaluate`; null is the last one.
        constraints: rules that samples obey, such as ["18<=age","start<=end","fixed(city,country)","unique(code)"].
            [auto] has all orders and fixed combinations that are found.
        batch_size: rows per batch.
        seed: seed of the training order.

    Raises:
        DataError: no such file or column, values that do not fit their type, too few rows, or a constraint that a row
            breaks.
    """

    def __init__(
        self,
        *,
        path: str,
        types: Annotated[list[str], MinLen(1)] | None = None,
        columns: Annotated[list[str], MinLen(1)] | None = None,
        target: str | None = None,
        constraints: Annotated[list[str], MinLen(1)] | None = None,
        batch_size: PositiveInt = 64,
        seed: int = 0,
    ) -> None:
        super().__init__(
            types=types, columns=columns, target=target, constraints=constraints, batch_size=batch_size, seed=seed
        )
        self.path = user_path(path)
        self.where = f"data.path={self.path}"

    def read(self) -> Texts:
        """Read the file."""
        return read_columns(self.path)

    def load(self) -> None:
        """Encode and split the rows, and count those that are in two splits."""
        super().load()
        train, val, test = (list(map(tuple, part[0].tolist())) for part in (self.train, self.val, self.test))
        warn_of_shared(self.registered_name, train, {"validation": val, "test": test}, "rows")


def read_columns(path: Path, setting: str = "data.path") -> Texts:
    """Fields of a CSV or Parquet file by column.

    Raises:
        DataError: no such file, or not of these formats.
    """
    if not path.is_file():
        raise DataError(f"{setting}={path}: no such file. Give a .csv or .parquet file.")
    if path.suffix.lower() == ".parquet":
        try:
            return read_parquet(path)
        except DataError as error:
            raise DataError(f"{setting}={path}: {error}") from None
    heading, rows = read_table(path, setting)
    return {name: [row[i] for _, row in rows] for i, name in enumerate(heading)}


def read_parquet(path: Path) -> Texts:
    """Fields of a Parquet file by column; a null is an empty text.

    Raises:
        DataError: not a Parquet file, or the extra is not installed.
    """
    pa = import_pyarrow(path)
    from pyarrow.parquet import ParquetFile

    try:
        read = ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file ({error}). Write it again.") from None
    table = read.to_pydict()
    return {name: ["" if v is None else text_of(v) for v in values] for name, values in table.items()}


def text_of(value: object) -> str:
    """A value of a Parquet file as the text that a CSV file would have."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)
