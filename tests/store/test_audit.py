"""The audit log as people read it, and what is kept beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import ConfigError, InvalidArgument
from gateway.store import Store, VersionRecord, url_of_folder
from tests.store.conftest import Open


def entries(store: Store) -> None:
    """Three."""
    store.register_version(VersionRecord("fraud", "1", "sha256:aa", "/models/fraud/1"), "gateway")
    store.put_route("fraud", {"versions": {"1": 100}}, 0, "gateway", "first", automatic=True)
    store.put_route("iris", {"versions": {"1": 100}}, 0, "anna", "why not")


def test_every_change_says_who_what_why_before_and_after(store: Store) -> None:
    entries(store)
    store.put_route("fraud", {"versions": {"2": 100}}, 1, "anna", "the new one is better")
    entry = store.audit_log()[0]
    assert (entry.seq, entry.actor, entry.action, entry.subject) == (4, "anna", "route.put", "fraud")
    assert entry.reason == "the new one is better"
    assert entry.before == {"generation": 1, "automatic": True, "route": {"versions": {"1": 100}}}
    assert entry.after == {"generation": 2, "automatic": False, "route": {"versions": {"2": 100}}}
    assert entry.at > 1.7e9


def test_a_change_that_was_refused_leaves_no_entry(store: Store) -> None:
    entries(store)
    with pytest.raises(InvalidArgument):
        store.put_route("fraud", {"x": float("inf")}, None, "anna", "")
    assert len(store.audit_log()) == 3
    assert store.verify_audit().ok


def test_the_log_is_read_newest_first_in_pages_by_model_and_by_action(store: Store) -> None:
    entries(store)
    store.audit("anna", "alarm.closed", "fraudulent", "another model", None, {"alarm": 7})
    assert [entry.seq for entry in store.audit_log(limit=2)] == [4, 3]
    assert [entry.seq for entry in store.audit_log(limit=2, before_seq=3)] == [2, 1]
    assert [entry.subject for entry in store.audit_log(model="fraud")] == ["fraud", "fraud/1"]
    assert [entry.seq for entry in store.audit_log(action="route")] == [3, 2]
    assert [entry.seq for entry in store.audit_log(action="route.put", model="iris")] == [3]
    assert store.audit_log(action="rout") == []


def test_an_untouched_log_is_found_untouched_and_its_head_is_told(store: Store, tmp_path: Path) -> None:
    assert store.verify_audit().head == "0:"
    entries(store)
    verdict = store.verify_audit()
    assert (verdict.ok, verdict.n, verdict.fault) == (True, 3, None)
    assert verdict.head == f"3:{store.audit_log()[0].hash}"
    assert (tmp_path / "state" / "audit-head").read_text().strip() == verdict.head
    assert store.verify_audit(head=verdict.head).ok


def test_a_head_noted_long_ago_still_holds(store: Store) -> None:
    entries(store)
    head = store.verify_audit().head
    store.put_route("fraud", {}, None, "anna", "")
    assert store.verify_audit(head=head).ok


def test_a_head_from_elsewhere_that_the_log_does_not_hold_is_told(store: Store) -> None:
    entries(store)
    count, _, digest = store.verify_audit().head.partition(":")
    assert store.verify_audit(head=f"2:{digest}").fault == (
        "entry 2: rewritten: its hash is not the one in the head that was given"
    )
    assert store.verify_audit(head=f"9:{digest}").fault == (
        "the tail is cut off: 3 entries, but the head that was given knows of 9"
    )
    assert count == "3"


@pytest.mark.parametrize("head", ["", "3", "abc:def", "-1:ab", "3:", "0:ab", "٣:ab", "9" * 40 + ":ab"])
def test_a_head_that_is_none_is_refused_with_its_form(store: Store, head: str) -> None:
    with pytest.raises(InvalidArgument, match=r"expected COUNT:HASH as `gateway audit verify` prints"):
        store.verify_audit(head=head)


def test_each_new_head_is_in_the_servers_log(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    entries(store)
    out = capsys.readouterr()
    text = out.out + out.err
    assert store.verify_audit().head in text
    assert "audit: route.put" in text
    assert "why not" in text


def test_a_store_of_its_own_has_a_key_that_only_its_user_reads(tmp_path: Path) -> None:
    with Store.open(url_of_folder(tmp_path / "state")) as store:
        entries(store)
        assert store.audit_log()[0].hash.startswith("hmac-sha256:")
    key = tmp_path / "state" / "audit.key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700


def test_a_shared_store_has_a_key_when_somebody_puts_one_there(postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with Store.open(url, tmp_path / "one") as store:
        entries(store)
        assert store.audit_log()[0].hash.startswith("sha256:")
    (tmp_path / "one" / "audit.key").write_text("ab" * 32)
    with Store.open(url, tmp_path / "one") as store:
        assert store.verify_audit().fault == "entry 3: written without the key, though there is one"
        store.put_route("fraud", {}, None, "anna", "")
        assert store.verify_audit().ok
        with Store.open(url, tmp_path / "two") as other:
            assert "needs the key" in str(other.verify_audit().fault)
            other.put_route("fraud", {}, None, "bert", "")
        assert store.verify_audit().fault == "entry 5: written without the key, after entries that have it"


def test_a_second_machine_notes_the_head_from_where_it_began(postgres, tmp_path: Path) -> None:
    url = postgres.new_database()
    with Store.open(url, tmp_path / "one") as one:
        entries(one)
        with Store.open(url, tmp_path / "two") as two:
            assert (tmp_path / "two" / "audit-head").read_text() == (tmp_path / "one" / "audit-head").read_text()
            one.put_route("fraud", {}, None, "anna", "")
            two.put_route("fraud", {}, None, "bert", "")
            assert two.verify_audit().ok
            assert one.verify_audit().ok
    heads = [(tmp_path / name / "audit-head").read_text().partition(":")[0] for name in ("one", "two")]
    assert heads == ["4", "5"]


def test_without_a_folder_a_shared_store_still_has_its_chain(postgres) -> None:
    with Store.open(postgres.new_database()) as store:
        entries(store)
        assert store.verify_audit().ok


def test_a_key_that_others_can_read_is_told_with_the_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Store.open(url_of_folder(tmp_path)).close()
    assert "open to others" not in capsys.readouterr().out
    (tmp_path / "audit.key").chmod(0o640)
    Store.open(url_of_folder(tmp_path)).close()
    out = capsys.readouterr().out
    assert "audit key is open to others" in out
    assert f"chmod 600 {tmp_path}/audit.key" in out


@pytest.mark.parametrize("content", ["", "not hexadecimal", "ab" * 31])
def test_a_key_that_is_none_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "audit.key").write_text(content)
    with pytest.raises(ConfigError, match=r"audit\.key: got .* expected 64 hexadecimal digits"):
        Store.open(url_of_folder(tmp_path))


def test_a_lost_key_is_told_and_changes_go_on(open_store: Open, tmp_path: Path) -> None:
    with Store.open(url_of_folder(tmp_path / "mine")) as store:
        entries(store)
    (tmp_path / "mine" / "audit.key").unlink()
    with Store.open(url_of_folder(tmp_path / "mine")) as store:
        store.put_route("fraud", {}, None, "anna", "roll back, now")
        assert "entry 1: needs the key" in str(store.verify_audit().fault)


def test_the_noted_head_that_cannot_be_written_is_told_and_the_change_is_made(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries(store)
    noted = tmp_path / "state" / "audit-head"
    noted.unlink()
    noted.mkdir()
    store.put_route("fraud", {}, None, "anna", "")
    assert store.routes()["fraud"].generation == 2
    out = capsys.readouterr()
    assert "audit head not noted" in out.out + out.err
    assert "audit-head: cannot be read" in str(store.verify_audit().fault)


def test_the_noted_head_that_was_lost_is_told_until_somebody_writes_it_anew(store: Store, tmp_path: Path) -> None:
    entries(store)
    noted = tmp_path / "state" / "audit-head"
    noted.unlink()
    store.put_route("fraud", {}, None, "anna", "")
    assert not noted.exists()
    verdict = store.verify_audit()
    assert verdict.fault == f"{noted}: is missing; without it nobody knows of a tail that was cut off"
    noted.write_text(verdict.head)
    assert store.verify_audit().ok
