"""Answers as the tools write them, laid out by their documentation and source, not by our writers."""

import json

import pytest

from edge.contract.errors import UnusableError
from hub.annotation import Annotation
from hub.store import Store
from tests.hub.labelled import event_id, made_batch, person
from tests.hub.returned import as_zip, files_of, names_of, stored, take

HEAD = Annotation((40, 20, 60, 40), "head")
DRAWN = {event_id(1): (Annotation((10, 20, 30, 40), "person"), HEAD), event_id(2): ()}


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def batch(store):
    return made_batch(store, 2)


@pytest.fixture
def stems(store, batch):
    return [name.removesuffix(".jpg") for name in names_of(store, batch).values()]


def test_cvat_for_images(store, batch, stems, tmp_path) -> None:
    """A task's export: many words about the task, attributes, an image without a box closed at once."""
    label = """<label><name>{}</name><color>#c06060</color><type>rectangle</type><attributes>
        <attribute><name>score</name><mutable>True</mutable><input_type>text</input_type>
        <default_value></default_value><values></values></attribute></attributes></label>"""
    box = '<box label="{}" source="manual" occluded="0" xtl="{}.00" ytl="{}.00" xbr="{}.00" ybr="{}.00" z_order="0">'
    box += "{}</box>"
    boxes = box.format("person", 10, 20, 30, 40, '<attribute name="score">0.91</attribute>')
    boxes += box.format("head", 40, 20, 60, 40, '<attribute name="score"></attribute>')
    xml = f"""<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task><id>7</id><name>Batch 1: dark</name><size>2</size><mode>annotation</mode><overlap>0</overlap>
      <labels>{label.format("head")}{label.format("person")}</labels>
      <segments><segment><id>9</id><start>0</start><stop>1</stop><url>http://localhost:8080/api/jobs/9</url></segment></segments>
      <owner><username>ann</username><email></email></owner><assignee></assignee></task>
    <dumped>2026-01-05 10:00:00.000000+00:00</dumped>
  </meta>
  <image id="0" name="{stems[0]}.jpg" subset="default" task_id="7" width="64" height="48">{boxes}</image>
  <image id="1" name="{stems[1]}.jpg" subset="default" task_id="7" width="64" height="48">
  </image>
</annotations>
"""
    report = take(store, batch, as_zip({"annotations.xml": xml.encode()}, tmp_path / "task.zip"))
    assert stored(store, batch) == DRAWN
    assert (report.format, report.labels, report.notes) == ("cvat", ("person", "head"), ())


def test_cvat_coco(store, batch, stems, tmp_path) -> None:
    """CVAT puts attributes, also ours, beside each box, and numbers categories in its own order."""
    boxes = [(2, [10.0, 20.0, 20.0, 20.0]), (1, [40.0, 20.0, 20.0, 20.0])]
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "description": "", "url": "", "version": "", "year": ""},
        "categories": [{"id": at, "name": name, "supercategory": ""} for at, name in ((1, "head"), (2, "person"))],
        "images": [
            {"id": at, "width": 64, "height": 48, "file_name": f"{stem}.jpg", "license": 0, "date_captured": 0}
            for at, stem in enumerate(stems, 1)
        ],
        "annotations": [
            {
                "id": at,
                "image_id": 1,
                "category_id": category,
                "segmentation": [],
                "area": 400.0,
                "bbox": bbox,
                "iscrowd": 0,
                "attributes": {"occluded": False, "rotation": 0.0, "score": "0.5", "origin": "zoom"},
            }
            for at, (category, bbox) in enumerate(boxes, 1)
        ],
    }
    zipped = as_zip({"annotations/instances_default.json": json.dumps(content).encode()}, tmp_path / "coco.zip")
    assert take(store, batch, zipped).format == "coco"
    assert stored(store, batch) == DRAWN


def test_coco_in_several_files(store, batch, stems) -> None:
    """A project's export has one file for each subset, each with ids of its own."""

    def content(stem, annotations):
        return json.dumps(
            {
                "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "head"}],
                "images": [{"id": 1, "width": 64, "height": 48, "file_name": f"images/{stem}.jpg"}],
                "annotations": annotations,
            }
        ).encode()

    boxes = [
        {"id": at, "image_id": 1, "category_id": at, "bbox": bbox}
        for at, bbox in ((1, [10, 20, 20, 20]), (2, [40, 20, 20, 20]))
    ]
    files = {
        "annotations/instances_train.json": content(stems[0], boxes),
        "annotations/instances_test.json": content(stems[1], []),
    }
    take(store, batch, files)
    assert stored(store, batch) == DRAWN


SIX_DIGITS = b"1 0.312500 0.625000 0.312500 0.416667\n0 0.781250 0.625000 0.312500 0.416667\n"


def test_cvat_yolo(store, batch, stems, tmp_path) -> None:
    """YOLO 1.1, the layout of darknet: every image has a label file, an empty one where nothing is."""
    files = {
        "obj.data": b"classes = 2\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n",
        "obj.names": b"head\nperson\n",
        "train.txt": "".join(f"data/obj_train_data/{stem}.jpg\n" for stem in stems).encode(),
        f"obj_train_data/{stems[0]}.txt": SIX_DIGITS,
        f"obj_train_data/{stems[1]}.txt": b"",
    }
    report = take(store, batch, as_zip(files, tmp_path / "yolo.zip"))
    assert stored(store, batch) == DRAWN
    assert (report.format, report.notes) == ("yolo", ())
    del files[f"obj_train_data/{stems[1]}.txt"]
    report = take(store, batch, files)
    assert report.images == 1, "whether anybody looked at it is not said"
    assert report.notes[0] == f"1 images stand in the file without an answer, such as {stems[1]}.jpg"


def test_cvat_ultralytics(store, batch, stems, tmp_path) -> None:
    """An image without boxes has no label file there; the list names it."""
    files = {
        "data.yaml": b"names:\n  0: head\n  1: person\npath: .\ntrain: train.txt\n",
        "train.txt": "".join(f"images/train/{stem}.jpg\n" for stem in stems).encode(),
        f"labels/train/{stems[0]}.txt": SIX_DIGITS,
    }
    report = take(store, batch, as_zip(files, tmp_path / "ultralytics.zip"))
    assert stored(store, batch) == DRAWN
    assert (report.images, report.missing) == (2, ())


def test_cvat_voc(store, batch, stems, tmp_path) -> None:
    """CVAT writes a label of its own, `background`, no depth, and our attributes as a list."""

    def xml(stem, objects):
        return (
            f"<annotation>\n  <folder></folder>\n  <filename>{stem}.jpg</filename>\n"
            "  <source><database>Unknown</database><annotation>Unknown</annotation><image>Unknown</image></source>\n"
            "  <size><width>64</width><height>48</height><depth></depth></size>\n  <segmented>0</segmented>\n"
            f"{objects}</annotation>\n"
        ).encode()

    one = (
        "<object><name>{}</name><truncated>0</truncated><occluded>0</occluded><difficult>0</difficult><bndbox>"
        "<xmin>{}</xmin><ymin>20.0</ymin><xmax>{}</xmax><ymax>40.0</ymax></bndbox>"
        "<attributes><attribute><name>score</name><value>0.5</value></attribute></attributes></object>\n"
    )
    files = {
        "labelmap.txt": b"# label:color_rgb:parts:actions\nbackground:0,0,0::\nhead:9,9,9::\nperson:1,2,3::\n",
        "ImageSets/Main/default.txt": "".join(f"{stem}\n" for stem in stems).encode(),
        f"Annotations/{stems[0]}.xml": xml(stems[0], one.format("person", 10.0, 30.0) + one.format("head", 40.0, 60.0)),
        f"Annotations/{stems[1]}.xml": xml(stems[1], ""),
    }
    report = take(store, batch, as_zip(files, tmp_path / "voc.zip"))
    assert stored(store, batch) == DRAWN
    assert (report.format, report.labels) == ("voc", ("person", "head"))


# Label Studio


def region(label, x, y, x2, y2, **more):
    value = {"x": x / 0.64, "y": y / 0.48, "width": (x2 - x) / 0.64, "height": (y2 - y) / 0.48, "rotation": 0}
    return {
        "original_width": 64,
        "original_height": 48,
        "image_rotation": 0,
        "value": value | {"rectanglelabels": [label]},
        "id": "Dx_aB91ISN",
        "from_name": "label",
        "to_name": "image",
        "type": "rectanglelabels",
        "origin": "manual",
    } | more


PERSON = region("person", 10, 20, 30, 40)


def exported(stems, *answers):
    """The file of an export: for each task its annotations, (who, regions)."""
    tasks = [
        {
            "id": 40 + at,
            "annotations": [
                {"id": 7, "completed_by": who, "result": regions, "was_cancelled": False, "lead_time": 12.3}
                for who, regions in of_task
            ],
            "file_upload": f"0badc0de-{stem}.jpg",
            "drafts": [],
            "predictions": [3, 4],  # their numbers only
            "data": {"image": f"/data/upload/1/0badc0de-{stem}.jpg"},
            "total_annotations": len(of_task),
        }
        for at, (stem, of_task) in enumerate(zip(stems, answers, strict=True))
    ]
    return {"project-1-at-2026-01-05-10-00-0badc0de.json": json.dumps(tasks).encode()}


def test_label_studio(store, batch, stems) -> None:
    head = region("head", 40, 20, 60, 40)
    report = take(store, batch, exported(stems, [(1, [PERSON, head])], [(1, [])]))
    assert stored(store, batch) == DRAWN
    assert (report.format, report.annotators, report.notes) == ("labelstudio", ("ann",), ())


def test_a_task_that_nobody_submitted_is_missing(store, batch, stems) -> None:
    files = exported(stems, [(1, [PERSON])], [])
    report = take(store, batch, files)
    assert report.missing == (f"{stems[1]}.jpg",)
    assert report.notes[0] == f"1 images stand in the file without an answer, such as {stems[1]}.jpg"


def test_each_annotator_of_a_file_gets_a_label_set(store, batch, stems) -> None:
    ann, bob = {"id": 1, "email": "ann@example.org", "first_name": "Ann"}, {"id": 2, "email": ""}
    files = exported(stems, [(ann, [PERSON]), (bob, [])], [(ann, [])])
    report = take(store, batch, files, annotator="", minutes=10)
    assert report.annotators == ("ann@example.org", "user-2")
    assert stored(store, batch, annotator="ann@example.org") == {event_id(1): DRAWN[event_id(1)][:1], event_id(2): ()}
    assert stored(store, batch, annotator="user-2") == {event_id(1): ()}
    assert [one.minutes for one in store.labels.sets()] == [5, 5]
    assert store.batch(batch).minutes == 10
    report = take(store, batch, files, annotator="user-2")
    assert (report.annotators, report.images) == (("user-2",), 1)
    assert "the work of ann@example.org was passed over" in report.notes
    with pytest.raises(UnusableError, match=r"2 annotators drew in this file: name one of ann@example\.org, user-2"):
        take(store, batch, files, annotator="eve")


def test_a_fault_of_one_annotator_keeps_the_others_out_too(store, batch, stems) -> None:
    files = exported(stems, [(1, [PERSON]), (2, [region("cat", 1, 1, 9, 9)])], [(1, [])])
    with pytest.raises(UnusableError, match=r"task 40, region 1, image .*: label 'cat'"):
        take(store, batch, files, annotator="")
    assert store.labels.sets() == []


def test_one_annotator_who_submitted_twice_is_a_fault(store, batch, stems) -> None:
    files = exported(stems, [(1, [PERSON]), (1, [])], [(1, [])])
    with pytest.raises(UnusableError, match=r"task 40, image .*: the image was there before"):
        take(store, batch, files)


def test_predictions_count_only_where_a_file_knows_of_no_people(store, batch) -> None:
    files = files_of(store, batch, {1: [person(1)], 2: []}, fmt="labelstudio")
    report = take(store, batch, files)
    assert "it has predictions that nobody submitted as an annotation; they count as drawn" in report.notes


def test_another_export_of_label_studio_is_named(store, batch) -> None:
    with pytest.raises(UnusableError, match='not a task file of Label Studio \\(export format "JSON"\\)'):
        take(store, batch, {"result.json": b'[{"image": "/a.jpg", "id": 1, "label": [{"x": 1}], "annotator": 1}]'})
