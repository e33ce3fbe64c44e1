"""How the rows of a round become statements: as few as can be, and none that does what it must not see done."""

from __future__ import annotations

import re
from collections.abc import Sequence

from perdure.server.core.records import EntityWrite
from perdure.server.store.postgres.statements import Change, FewRows, group_changes, statement
from perdure.server.store.rounds import Fence, Round, gather
from tests.server.store import rows
from tests.server.store.postgres.rounds import round_with

FENCE = Fence("node", 1, 1)


def _names(groups: Sequence[tuple[Change, ...]]) -> list[list[str]]:
    return [[change.rows for change in group] for group in groups]


def test_a_round_without_rows_is_no_statement() -> None:
    assert not group_changes(Round(), changes_tables_once=False)


def test_what_a_workflow_does_is_one_statement() -> None:
    write = rows.write_to_every_table(["r0", "r1"])
    write.runs_closed = ["r1"]
    [made] = gather([write])
    [group] = group_changes(made, changes_tables_once=False)
    assert {"runs_advanced", "events", "activities", "timers", "buffered", "children", "outbox", "inbox"} < {
        change.rows for change in group
    }


def test_a_run_that_gives_its_place_up_is_deleted_by_a_statement_that_sees_it() -> None:
    groups = group_changes(round_with(["runs_not_current", "runs_deleted", "events"]), changes_tables_once=False)
    assert _names(groups) == [["runs_not_current", "events"], ["runs_deleted"]]


def test_who_takes_the_place_of_a_deleted_run_comes_after_it() -> None:
    groups = group_changes(round_with(["runs_not_current", "runs_deleted", "runs_new"]), changes_tables_once=False)
    assert _names(groups) == [["runs_not_current"], ["runs_deleted", "runs_new"]]


def test_a_database_that_changes_a_table_once_in_a_statement_gets_the_next_change_in_the_next_one() -> None:
    groups = group_changes(
        round_with(["runs_advanced", "runs_new", "events", "activities", "activities_removed"]),
        changes_tables_once=True,
    )
    assert _names(groups) == [["runs_advanced", "events", "activities"], ["runs_new", "activities_removed"]]


def test_a_change_waits_for_the_one_before_it_in_its_table_and_for_no_other() -> None:
    made = round_with(["runs_advanced", "runs_new", "events"])
    [group] = group_changes(made, changes_tables_once=False)
    text = statement(group, made).text
    source = r"SELECT \* FROM unnest\([^)]*\) AS given WHERE"
    assert re.search(r"INSERT INTO run [^)]*\) " + source + r" \(SELECT count\(\*\) FROM change_0\)", text)
    assert re.search(r"INSERT INTO event [^)]*\) " + source + " TRUE ", text)


def test_nothing_happens_behind_a_fence_that_refuses() -> None:
    made = round_with()
    for group in group_changes(made, changes_tables_once=False):
        text = statement(group, made, FENCE).text
        assert text.count("EXISTS (SELECT 1 FROM fence)") == len(group)
        assert text.endswith(" FROM fence")


def test_parameters_are_the_fence_the_columns_and_how_many_runs_are_expected() -> None:
    made = round_with(["events"])
    made.runs_advanced = [list(range(14)), list(range(14, 28))]
    [group] = group_changes(made, changes_tables_once=False)
    behind, alone = statement(group, made, FENCE), statement(group, made)
    columns = [*zip(*made.runs_advanced, strict=True), *zip(*made.events, strict=True)]
    assert behind.parameters == ["node", 1, 1, *columns, 2]
    assert alone.parameters == [*columns, 2]
    assert f"${len(behind.parameters)}::bigint THEN" in behind.text
    assert f"${len(alone.parameters)}::bigint THEN" in alone.text


def _one_step(events: int, *, workflows: int = 1) -> Round:
    """A round in which a run comes further by so many events."""
    made = round_with([], workflows=workflows)
    made.runs_advanced, made.events = [list(range(14))], [("r", number) for number in range(events)]
    return made


def _is_value_by_value(made: Round, few: FewRows) -> bool:
    [group] = group_changes(made, changes_tables_once=False)
    text = statement(group, made, FENCE, few).text
    assert ("unnest" in text) != ("(VALUES (" in text), "all of it is given in the same way"
    return "unnest" not in text


def test_few_rows_of_a_single_workflow_are_given_value_by_value() -> None:
    made = _one_step(3)
    [group] = group_changes(made, changes_tables_once=False)
    whole = statement(group, made, FENCE, FewRows())
    assert whole.parameters == ["node", 1, 1, *range(14), "r", 0, "r", 1, "r", 2, 1]
    assert "unnest" not in whole.text
    assert whole.text.count("(VALUES ($") == 2


def test_rows_of_several_workflows_and_many_rows_are_given_as_columns() -> None:
    few = FewRows()
    assert not _is_value_by_value(_one_step(3, workflows=2), few)
    assert not _is_value_by_value(_one_step(5), few)
    fan_out = _one_step(3)
    fan_out.timers_removed = [("r", "a"), ("r", "b")]
    assert not _is_value_by_value(fan_out, few)


def test_only_the_first_kinds_of_batches_have_texts_of_their_own() -> None:
    few = FewRows(kinds_max=2)
    assert [_is_value_by_value(_one_step(events), few) for events in (1, 2, 3, 1, 2)] == [True, True, False, True, True]


def test_what_a_deleted_run_has_done_is_not_written() -> None:
    write = EntityWrite(rows.key("w"), events=[rows.event("gone", 1), rows.event("r", 1)], runs_deleted=["gone"])
    [made] = gather([write])
    assert [row[0] for row in made.events] == ["r"]
