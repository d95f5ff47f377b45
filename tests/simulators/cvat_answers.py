"""What the stand-in of tests.simulators.cvat answers, in the shapes that cvat-sdk 2.80 parses."""

from tests.simulators.cvat import USER, WHEN, StandInCvat, StandInJob, StandInTask


def user_answer(server: StandInCvat, name: str | None) -> dict | None:
    if name is None:
        return None
    number = server.users[name]
    return {
        "id": number,
        "username": name,
        "url": f"{server.url}/api/users/{number}",
        "first_name": "",
        "last_name": "",
    }


def task_answer(server: StandInCvat, task: StandInTask) -> dict:
    done = sum(job.state == "completed" for job in task.jobs)
    return {
        "url": f"{server.url}/api/tasks/{task.id}",
        "id": task.id,
        "name": task.name,
        "project_id": task.project,
        "mode": "annotation",
        "owner": user_answer(server, USER),
        "assignee": user_answer(server, task.assignee),
        "bug_tracker": "",
        "created_date": WHEN,
        "updated_date": WHEN,
        "overlap": 0,
        "segment_size": 0,
        "status": "annotation",
        "size": len(task.frames),
        "dimension": "2d",
        "subset": "",
        "organization": None,
        "target_storage": None,
        "source_storage": None,
        "jobs": {"count": len(task.jobs), "completed": done, "validation": 0, "url": f"{server.url}/api/jobs"},
        "labels": {"url": f"{server.url}/api/labels?task_id={task.id}"},
    }


def project_answer(server: StandInCvat, number: int) -> dict:
    return {
        "url": f"{server.url}/api/projects/{number}",
        "id": number,
        "name": "yard",
        "owner": user_answer(server, USER),
        "assignee": None,
        "created_date": WHEN,
        "updated_date": WHEN,
        "status": "annotation",
        "dimension": "2d",
        "organization": None,
        "target_storage": None,
        "source_storage": None,
        "tasks": {"count": 0, "url": f"{server.url}/api/tasks?project_id={number}"},
        "labels": {"url": f"{server.url}/api/labels?project_id={number}"},
    }


def labels_answer(labels: dict[str, tuple[str, ...]]) -> list[dict]:
    return [
        {
            "id": number,
            "name": name,
            "color": "#ff0000",
            "type": "rectangle",
            "attributes": [
                {
                    "id": 100 * number + place,
                    "name": one,
                    "mutable": True,
                    "input_type": "text",
                    "values": [""],
                    "default_value": "",
                }
                for place, one in enumerate(attributes)
            ],
        }
        for number, (name, attributes) in enumerate(labels.items(), 1)
    ]


def job_answer(server: StandInCvat, task: StandInTask, job: StandInJob) -> dict:
    return {
        "url": f"{server.url}/api/jobs/{job.id}",
        "id": job.id,
        "task_id": task.id,
        "project_id": task.project,
        "assignee": user_answer(server, job.assignee),
        "dimension": "2d",
        "mode": "annotation",
        "status": "annotation",
        "stage": "annotation",
        "state": job.state,
        "type": job.type,
        "frame_count": job.stop - job.start + 1,
        "start_frame": job.start,
        "stop_frame": job.stop,
        "created_date": WHEN,
        "updated_date": WHEN,
        "organization": None,
        "target_storage": None,
        "source_storage": None,
        "issues": {"count": 0, "url": f"{server.url}/api/issues?job_id={job.id}"},
        "labels": {"url": f"{server.url}/api/labels?job_id={job.id}"},
    }


def meta_answer(task: StandInTask) -> dict:
    return {
        "chunks_updated_date": WHEN,
        "chunk_size": 36,
        "size": len(task.frames),
        "image_quality": task.quality or 70,
        "start_frame": 0,
        "stop_frame": max(0, len(task.frames) - 1),
        "frame_filter": "",
        "frames": [
            {"name": name, "width": width, "height": height, "related_files": 0, "has_related_context": False}
            for name, width, height in task.frames
        ],
        "deleted_frames": sorted(task.deleted),
        "included_frames": None,
    }


def annotations_answer(task: StandInTask) -> dict:
    numbers = {name: number for number, name in enumerate(task.labels, 1)}
    return {
        "version": 1,
        "tags": [],
        "tracks": [],
        "shapes": [
            {
                "id": number,
                "type": "rectangle",
                "frame": shape.frame,
                "label_id": numbers[shape.label],
                "group": 0,
                "source": shape.source,
                "occluded": False,
                "outside": False,
                "z_order": 0,
                "rotation": 0.0,
                "points": list(shape.points),
                "attributes": [
                    {"spec_id": 100 * numbers[shape.label] + place, "value": shape.attributes.get(one, "")}
                    for place, one in enumerate(task.labels[shape.label])
                ],
                "elements": [],
            }
            for number, shape in enumerate(task.shapes, 1)
        ],
    }
