"""Read the classes of images from a CSV or JSON Lines file."""

from pathlib import Path

from zoo.core.errors import DataError
from zoo.data.table.csv_file import read_table
from zoo.data.text.files import jsonl

FILES = ("file_name", "filename", "file", "image", "path", "id", "name")  # names of the column of files
CLASSES = ("label", "class", "category", "target", "y")


def read_labels(path: Path, files: list[str]) -> tuple[list[str], list[int]]:
    """Read the names of the classes, and the class of each image.

    A row names an image by its relative path, its name, or its name without suffix.

    Raises:
        DataError: no such file or columns, or an image without a row.
    """
    if not path.is_file():
        raise DataError(f"data.label_file={path}: no such file. Set data.label_file=FILE.csv.")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = [{key: str(value) for key, value in row.items()} for _, row in jsonl(path)]
    else:
        heading, found = read_table(path, "data.label_file")
        rows = [dict(zip(heading, row, strict=True)) for _, row in found]
    columns = {name.lower(): name for row in rows[:1] for name in row}
    file, kind = (next((columns[name] for name in names if name in columns), None) for names in (FILES, CLASSES))
    if file is None or kind is None:
        raise DataError(
            f"data.label_file={path}: its columns are {', '.join(columns.values()) or 'none'}. "
            f"Name that of the files file_name, and that of the classes label."
        )
    classes = {row[file]: row[kind] for row in rows if row.get(file) and row.get(kind)}
    names = [next((classes[key] for key in (f, Path(f).name, Path(f).stem) if key in classes), None) for f in files]
    if lost := [name for name, label in zip(files, names, strict=True) if label is None]:
        raise DataError(
            f"data.label_file={path}: no class for {len(lost):,} of {len(files):,} images, such as {lost[0]}. "
            f"Add rows, or move these images away."
        )
    distinct = {name for name in names if name is not None}
    numbers = all(name.isdecimal() for name in distinct)
    order = sorted(distinct, key=lambda name: (int(name), name) if numbers else (0, name))
    place: dict[str | None, int] = {name: i for i, name in enumerate(order)}
    return order, [place[name] for name in names]
