"""`hub serve`: one process that ingests, and curates when no other process of this database does.

Three threads beside the main one: the client's network loop (hub.link), the committer (hub.ingest) and the curator
(hub.curator). Any of them that fails takes the process down with exit status 1, for the supervisor to start it again: a
hub that only looks alive would be worse.

Law: on SIGTERM the process takes no more messages, commits and acknowledges what it has, and exits 0.
"""

import hashlib
import logging
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple, Self

from edge.contract.errors import UnusableError, WeakspotError
from hub.config import HubConfig
from hub.curator import Curator, FileLock, LeaderIndex
from hub.ingest import Committer
from hub.link import Link
from hub.policies import PolicyPost
from hub.rollouts import RolloutPost
from hub.store import Store
from hub.tags import Tagger

MAX_PROCESSES: Final = 64
DRAIN_S: Final = 20.0
SWITCH_S: Final = 0.0005  # at Python's 5 ms the committer, back from SQLite, waits for the network's thread too long
_CURATE_PAUSE_S: Final = 0.2
_CURATE_IDLE_S: Final = 2.0
log = logging.getLogger(__name__)


def serve(config: HubConfig, *, stop: threading.Event, make_index: Callable[[], LeaderIndex]) -> bool:
    """Run until `stop` is set. Return False when a thread has failed.

    Raises `UnusableError` when the database, a lock file, a certificate or the broker's address cannot be used.
    """
    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        Store.open(config.database).close()  # errors that a person can act on show here, before any thread starts
        slot = stack.enter_context(ProcessSlot(config.database))
        curating = stack.enter_context(FileLock(beside(config.database, "curator")))
        wake = threading.Event()
        committer = Committer(config.ingest, capacity=config.mqtt.receive_maximum, on_commit=wake.set)
        failed = threading.Event()

        def fail() -> None:
            failed.set()
            stop.set()

        link = Link(config.mqtt, client_id=slot.client_id, hand_over=committer.put, on_failure=fail)

        def commit() -> None:
            with Store.open(config.database, create=False) as store:
                committer.run(store, link)

        def curate() -> None:
            with Store.open(config.database, create=False) as store:
                curator = Curator(
                    store,
                    make_index=make_index,
                    line=link,
                    wants=config.wants,
                    keep=config.keep,
                    tagger=Tagger(config.tags),
                )
                posts = Posts(PolicyPost(store, line=link), RolloutPost(store, line=link))
                curate_until(stop, curator=curator, posts=posts, wake=wake, lock=curating)

        threads: list[threading.Thread] = []
        try:
            threads += (_thread(work, fail=fail) for work in (commit, curate))
            link.start()
            stop.wait()
        finally:
            # Also when a thread or the link could not be started: a thread left running would keep the process.
            stop.set()
            _stop(link, committer, wake, threads)
        log.info("stopped after %d messages; %d of QoS 0 were lost", committer.taken, committer.lost)
        return not failed.is_set()


def _stop(link: Link, committer: Committer, wake: threading.Event, threads: Sequence[threading.Thread]) -> None:
    log.info("stopping: no more messages are taken")
    link.pause()
    committer.drain()
    wake.set()
    for thread in threads[:1]:
        thread.join(DRAIN_S)
        if thread.is_alive():
            log.error("not everything in hand could be stored; it was not acknowledged and the devices still have it")
    committer.abandon()
    for thread in threads:
        thread.join()
    link.stop()


class Posts(NamedTuple):
    """What is published beside the curator's wants."""

    policies: PolicyPost
    rollouts: RolloutPost


def curate_until(
    stop: threading.Event, *, curator: Curator, posts: Posts, wake: threading.Event, lock: FileLock
) -> None:
    """Step after every commit, and every few seconds, while this process holds the lock."""
    while not stop.is_set():
        wake.wait(_CURATE_IDLE_S)
        wake.clear()
        if not lock.acquire():
            stop.wait(_CURATE_IDLE_S)
            continue
        try:
            now_ms = time.time_ns() // 1_000_000
            if ordered := posts.rollouts.step(now_ms):
                log.info("published the orders of %d devices", ordered)
            if published := posts.policies.step():
                log.info("published %d policies", published)
            did = curator.step(now_ms)
        except sqlite3.OperationalError as error:
            log.error("nothing is grouped, asked for or published: %s; trying again", error)  # noqa: TRY400
            stop.wait(_CURATE_IDLE_S)
            continue
        if any(did):
            log.debug("grouped %d, asked for %d, asked again for %d", did.grouped, did.wanted, did.resent)
        if did.more:
            wake.set()
        else:
            stop.wait(_CURATE_PAUSE_S)  # so that one transaction groups what several have committed


def _thread(work: Callable[[], None], *, fail: Callable[[], None]) -> threading.Thread:
    def guarded() -> None:
        try:
            work()
        except WeakspotError as error:
            log.critical("%s: %s", work.__name__, error)
            fail()
        except BaseException:
            log.exception("%s failed", work.__name__)
            fail()

    thread = threading.Thread(target=guarded, name=work.__name__)
    thread.start()
    return thread


def beside(database: Path, what: str) -> Path:
    """Return the name of a lock file of this database."""
    return database.with_name(f"{database.name}.{what}.lock")


class ProcessSlot:
    """The number of this process among those of one database, 0 upwards, and the MQTT client id made of it.

    The id of a killed process is taken up by its successor, who so inherits its session: no session is left behind to
    which the broker would go on giving a share of the messages.
    """

    def __init__(self, database: Path) -> None:
        for number in range(MAX_PROCESSES):
            self._lock = FileLock(beside(database, f"serve-{number}"))
            if self._lock.acquire():
                host = "".join(c for c in socket.gethostname() if c.isalnum() or c == "-")[:40]
                place = hashlib.sha256(str(database.resolve()).encode()).hexdigest()[:8]
                self.client_id = f"weakspot-hub-{host}-{place}-{number}"
                return
        msg = f"{MAX_PROCESSES} processes already serve {database}"
        raise UnusableError(msg)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()
