"""Everything that can be wrong with images and annotations in two folders, found before a training run finds it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from maskrcnn_benchmark.data.datasets.annotated_image import AnnotatedImage
from maskrcnn_benchmark.data.datasets.folder_dataset import FolderSource, ImageFile
from maskrcnn_benchmark.data.datasets.report import DataReport, Progress, faults_of_image, warnings_of_object


def check_folder(
    source: FolderSource, *, classes: Sequence[str] | None = None, decode: bool = True, progress: Progress = iter
) -> DataReport:
    """Go through the images and annotation files of a data set, with the reader that training uses.

    Args:
        source: where things lie.
        classes: the classes of the run; None: any.
        decode: also decode every image, which finds damaged files and wrong sizes.
        progress: wraps the loop over the images, for example in a progress bar.
    """
    report = DataReport(errors=list(source.errors))
    report.warnings += [
        f"image {source.root / name} has no annotation file in {source.place} and is left out"
        for name in source.unlabelled
    ]
    counted: Counter[str] = Counter()
    backgrounds = ignored = masks = 0
    for file in progress(source.files):
        image = _read(source, file, report)
        report.errors += faults_of_image(file.image, image.size if image is not None else None, decode=decode)
        if image is None:
            continue
        report.errors += image.errors
        report.warnings += image.warnings
        report.image_sizes.append(image.size)
        objects = [each for each in image.objects if not each.is_ignored]
        backgrounds, ignored = backgrounds + (not objects), ignored + len(image.objects) - len(objects)
        for number, item in enumerate(image.objects, start=1):
            who = f"annotation file {file.annotation}: object {number} ({item.name})"
            if classes is not None and item.name not in classes:
                report.errors.append(f"{who} has a class that is not among {', '.join(classes)}")
            report.warnings += warnings_of_object(who, item.box.tolist(), item.rings, image.size)
        counted.update(each.name for each in objects)
        masks += sum(bool(each.rings) for each in objects)
        report.object_sizes += [(float(each.box[3]), float(each.box[2])) for each in objects]
    names = classes or source.names or sorted(counted)
    report.objects = {name: counted[name] for name in (*names, *sorted(counted.keys() - set(names)))}
    report.counts = {
        "images": len(source.files),
        "images without objects": backgrounds,
        "categories": len(names),
        "objects": sum(counted.values()),
        "objects with masks": masks,
        "ignored objects": ignored,
    }
    if not source.files:
        report.errors.append(f"there is no image with annotations in {source.root}")
    return report


def _read(source: FolderSource, file: ImageFile, report: DataReport) -> AnnotatedImage | None:
    """The annotations of an image; None, and the reason among the errors, where they cannot be read."""
    try:
        return source.read(file)
    except (OSError, ValueError) as error:
        # What is wrong with the image itself is found when it is decoded.
        if str(file.image) not in str(error):
            report.errors.append(str(error))
        return None
