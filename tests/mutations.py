"""Break each promise of docs/threat-model.md on purpose: the test that is named for it has to fail.

    python tests/mutations.py [NAME ...]

A mutation replaces one exact piece of the source in a copy of the tree and runs one test there. It survives
where that test passes; it is out of date where its piece is no longer in the source, once. Both are errors.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).resolve().parents[1]
_COPIED = (
    "esn_core",
    "client",
    "server",
    "tests",
    "docs",
    "site_configs",
    "pyproject.toml",
    "constraints.txt",
)
# Each in a copy of its own.
_AT_ONCE = 2
# Pytest's: some tests failed. Any other status says that none ran to its end.
_FAILED = 1

_GATE = "client/esn_client/gate/gate.py"
_POLICY = "client/esn_client/gate/policy.py"
_LEDGER = "client/esn_client/gate/ledger.py"
_STORE = "client/esn_client/gate/ledger_store.py"
_SECURE_SUM = "esn_core/privacy/secure_sum.py"
_GRID = "esn_core/privacy/fixed_point.py"
_RELAY = "esn_core/transcript/relay.py"
_CALLERS = "server/esn_server/front/callers.py"
_CALLS = "server/esn_server/front/site_calls.py"

_OF_GATE = "tests/client/gate/test_gate.py::"
_OF_MASKS = "tests/client/gate/test_gate_masked.py::"
_OF_LEDGER = "tests/client/gate/test_ledger.py::"
_OF_SUMS = "tests/core/privacy/test_secure_sum.py::"
_OF_GRID = "tests/core/privacy/test_fixed_point.py::"
_OF_POOL = "tests/study/test_pooled_reference.py::"
_OF_TRANSCRIPT = "tests/study/test_transcript.py::"
_OF_CALLERS = "tests/server/front/test_callers.py::"
_OF_CALLS = "tests/server/front/test_site_calls.py::"
_OF_ENROLMENT = "tests/server/enrolment/test_enrolment.py::"


@dataclass(frozen=True)
class Mutation:
    """One fault.

    Attributes
    ----------
    name : str
        As docs/threat-model.md says it.
    file : str
    old, new : str
        What is replaced, and by what.
    test : str
        The one that has to fail.

    """

    name: str
    file: str
    old: str
    new: str
    test: str


MUTATIONS = (
    Mutation(
        "rows are not clipped",
        _GATE,
        "sum_rows(clip_rows(values, kind.l2_bound), kind)",
        "sum_rows(values, kind)",
        _OF_GATE + "test_whatever_the_rows_are_one_child_moves_the_sum_by_its_bound_at_most",
    ),
    Mutation(
        "infinite numbers become large ones",
        "esn_core/privacy/release.py",
        "np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)",
        "np.nan_to_num(rows)",
        "tests/core/privacy/test_releases.py::test_a_row_that_is_not_finite_counts_as_zero_and_changes_no_other",
    ),
    Mutation(
        "rounding is not in the sensitivity",
        _GRID,
        " + math.sqrt(kind.dimension) / 2",
        "",
        _OF_GRID + "test_the_sensitivity_grows_with_what_rounding_can_move",
    ),
    Mutation(
        "no noise is added",
        _GATE,
        "self._noise(kind.dimension, noise_sd)",
        "0 * self._noise(kind.dimension, noise_sd)",
        "tests/study/test_every_phase.py::test_the_noise_of_every_phase_is_what_its_price_says[centre]",
    ),
    Mutation(
        "the noise of newton is halved",
        _GATE,
        "noise_units(kind, price.noise_multiplier, share",
        "noise_units(kind, price.noise_multiplier / (1 + (kind.name == 'newton')), share",
        "tests/study/test_every_phase.py::test_the_noise_of_every_phase_is_what_its_price_says[newton]",
    ),
    Mutation(
        "shares of noise are of its spread",
        _GRID,
        "noise_multiplier * math.sqrt(share)",
        "noise_multiplier * share",
        _OF_GRID + "test_shares_of_noise_add_up_to_the_whole",
    ),
    Mutation(
        "the noise can be seeded",
        "client/esn_client/gate/noise.py",
        "return np.array(_measurement(scale)([0] * dimension), dtype=np.int64)",
        "return np.rint(np.random.normal(0.0, scale, dimension)).astype(np.int64)",
        "tests/client/gate/test_noise_source.py::test_a_seed_of_numpy_changes_nothing",
    ),
    Mutation(
        "scans count as children",
        _GATE,
        "if len(set(labels)) < needed:",
        "if len(labels) < needed:",
        _OF_GATE + "test_scans_of_one_child_do_not_make_a_minimum",
    ),
    Mutation(
        "the site's own minimum is forgotten",
        _POLICY,
        "return max(limits.minimum_children, protocol.minimum(people))",
        "return protocol.minimum(people)",
        _OF_GATE + "test_too_few_children_stop_at_the_count_of_the_site_or_the_protocol",
    ),
    Mutation(
        "exact sums need no consent",
        _POLICY,
        "if price.exact and not limits.exact_sums:",
        "if False:",
        _OF_GATE + "test_exact_sums_without_consent_stop_at_the_policy",
    ),
    Mutation(
        "a pooled reference needs no consent",
        _POLICY,
        'phase.phase == "reference" for phase in price.phases',
        "False for phase in price.phases",
        _OF_POOL + "test_a_site_without_its_own_consent_or_with_few_controls_refuses",
    ),
    Mutation(
        "a site that trains nothing sums its training children",
        _GATE,
        'return people == "training" and not protocol.trains(self._site)',
        "return False",
        _OF_POOL + "test_no_training_child_of_such_a_site_passes_its_gate",
    ),
    Mutation(
        "exact sums leave in the clear",
        _POLICY,
        'if not bare or limits.trust == "local":',
        "if True:",
        _OF_GATE + "test_a_site_that_demands_masks_gives_no_exact_sum_in_the_clear",
    ),
    Mutation(
        "any number of colluding sites will do",
        _POLICY,
        "if withstood < demanded:",
        "if False:",
        _OF_MASKS + "test_a_site_that_fears_more_colluding_sites_refuses",
    ),
    Mutation(
        "what cannot leave is paid for",
        _GATE,
        "        if unfit:\n",
        "        if False:\n",
        _OF_GATE + "test_a_sum_that_no_message_holds_is_refused_before_anything_is_charged",
    ),
    Mutation(
        "there is no quorum",
        _GATE,
        "if len(named) < fewest:",
        "if False:",
        _OF_MASKS + "test_a_set_of_sites_that_cannot_be_is_refused_before_anything_is_charged",
    ),
    Mutation(
        "any sites can be named",
        _GATE,
        "if named != allowed or self._site not in named:",
        "if self._site not in named:",
        _OF_MASKS + "test_a_set_of_sites_that_cannot_be_is_refused_before_anything_is_charged",
    ),
    Mutation(
        "a second run is answered",
        _LEDGER,
        "if before is not None and before != run:",
        "if False:",
        _OF_LEDGER + "test_a_second_run_of_a_protocol_is_refused",
    ),
    Mutation(
        "other content is answered",
        _LEDGER,
        "if before.content_sha256 != content_sha256:",
        "if False:",
        _OF_GATE + "test_the_same_id_with_other_content_is_refused",
    ),
    Mutation(
        "a fresh draw leaves",
        _GATE,
        "return self._send_sum(question, paid, protocol)",
        "return self._send_sum(question, replace(paid, total=total), protocol)",
        "tests/client/gate/test_gate_adversary.py::"
        "test_no_sequence_gives_two_vectors_a_small_sum_or_a_spend_that_the_ledger_lacks",
    ),
    Mutation(
        "there is no cap",
        _LEDGER,
        "if epsilon > epsilon_cap * (1 + _ROUNDING):",
        "if False:",
        _OF_LEDGER + "test_the_cap_holds_for_the_patient_who_spent_most",
    ),
    Mutation(
        "a seed is for two sets of sites",
        _LEDGER,
        "if before != tuple(participants):",
        "if False:",
        _OF_LEDGER + "test_a_seed_is_revealed_for_one_set_of_sites_only",
    ),
    Mutation(
        "a seed comes before its sum",
        _LEDGER,
        "if self.paid(question) is None:",
        "if False:",
        _OF_LEDGER + "test_no_seed_is_revealed_before_its_question_was_answered",
    ),
    Mutation(
        "another salt is taken",
        _LEDGER,
        "if self._spending.salt_sha256 not in (None, salt_sha256):",
        "if False:",
        _OF_LEDGER + "test_a_salt_that_was_replaced_is_seen",
    ),
    Mutation(
        "patients' hashes need no secret",
        "client/esn_client/gate/patients.py",
        "key=salt[:64], digest_size=16",
        "digest_size=16",
        _OF_LEDGER + "test_patients_are_hashed_with_the_sites_secret",
    ),
    Mutation(
        "the ledger is no chain",
        _STORE,
        "if sequence != count or said != seen.head or digest != _hash(sequence, body, said):",
        "if sequence != count:",
        _OF_LEDGER + "test_a_tampered_ledger_is_seen_and_not_opened",
    ),
    Mutation(
        "nobody signs the ledger",
        _STORE,
        "public.verify(signature, digest.encode())",
        "pass",
        _OF_LEDGER + "test_a_ledger_that_was_written_anew_by_another_is_seen",
    ),
    Mutation(
        "pairs of sites share no mask",
        _SECURE_SUM,
        "hidden = hidden + stream if place < other else hidden - stream",
        "hidden = hidden + 0 * stream",
        _OF_SUMS + "test_a_masked_vector_looks_uniform_whatever_it_hides",
    ),
    Mutation(
        "masks are the same for every set",
        _SECURE_SUM,
        "self.transcript, *self.participants)",
        "self.transcript)",
        _OF_SUMS + "test_masks_and_seeds_are_others_in_every_other_attempt",
    ),
    Mutation(
        "nobody checks that masks cancel",
        _SECURE_SUM,
        "if _check_number(total[:-1], attempt) != total[-1]:",
        "if False:",
        _OF_SUMS + "test_a_damaged_answer_is_seen",
    ),
    Mutation(
        "anybody's questions are read",
        "esn_core/messages/envelope.py",
        "if not is_signed(body, signature, key, purpose):",
        "if False:",
        "tests/core/messages/test_questions.py::test_a_signature_of_another_key_is_none",
    ),
    Mutation(
        "any key signs a protocol",
        "esn_core/protocol/signature.py",
        "if identity_text(found) != identity_text(key):",
        "if False:",
        _OF_ENROLMENT + "test_another_centres_protocol_is_neither_run_nor_signed",
    ),
    Mutation(
        "protocols last for ever",
        "esn_core/protocol/signature.py",
        "if today > protocol.expires:",
        "if False:",
        _OF_ENROLMENT + "test_an_expired_protocol_is_neither_run_nor_signed",
    ),
    Mutation(
        "requests need no signature",
        "esn_core/identity/enrolment.py",
        'if not is_signed(_canonical(self.entry), value, key, "enrolment"):',
        "if False:",
        _OF_ENROLMENT + "test_a_request_of_a_stranger_in_a_sites_name_is_refused",
    ),
    Mutation(
        "identity keys can be exchanged",
        "server/esn_server/enrolment/sites.py",
        "if before.identity_key != entry.identity_key:",
        "if False:",
        _OF_ENROLMENT + "test_an_identity_key_is_not_exchanged",
    ),
    Mutation(
        "the front takes any signature",
        _CALLERS,
        'key.verify(signature, stamp.encode("ascii"), ec.ECDSA(hashes.SHA256()))',
        "pass",
        _OF_CALLERS + "test_whoever_signs_with_another_key_or_is_not_enrolled_is_a_stranger",
    ),
    Mutation(
        "a call can be made again",
        _CALLERS,
        "if stamp in stamps or len(stamps)",
        "if len(stamps)",
        _OF_CALLERS + "test_a_call_that_was_overheard_cannot_be_made_again",
    ),
    Mutation(
        "a site activates another",
        _CALLS,
        '_require(call.public_key == site, "another site\'s key")',
        "pass",
        _OF_CALLS + "test_a_site_activates_itself_only",
    ),
    Mutation(
        "a site reads another's messages",
        _CALLS,
        '_require(any(g.run_id == call.run_id for g in given), "not a part of a message to this site")',
        "pass",
        _OF_CALLS + "test_a_site_reads_nothing_of_another",
    ),
    Mutation(
        "a site confirms another's messages",
        _CALLS,
        '_require(message is not None and message.run_id == call.run_id, "not a message to this site")',
        "pass",
        _OF_CALLS + "test_a_site_confirms_nothing_away_of_another",
    ),
    Mutation(
        "relayed answers need no signature",
        "esn_core/messages/envelope.py",
        "if not is_signed(body, signature, key, purpose):",
        "if purpose == 'question' and not is_signed(body, signature, key, purpose):",
        _OF_TRANSCRIPT + "test_a_sum_that_was_not_released_is_refused[one number of an answer changed-masks]",
    ),
    Mutation(
        "relayed sums need no quorum",
        _RELAY,
        "len(sites) < protocol.rounds.quorum",
        "len(sites) < 1",
        _OF_TRANSCRIPT + "test_a_sum_of_fewer_sites_than_the_quorum_is_refused",
    ),
    Mutation(
        "sums of any run are taken",
        _RELAY,
        'update={"attempt": answer.id.attempt}',
        "update=dict(answer.id)",
        _OF_TRANSCRIPT + "test_a_sum_that_was_not_released_is_refused[answers of another run-masks]",
    ),
    Mutation(
        "masks do not depend on the transcript",
        _SECURE_SUM,
        "self.question, self.transcript, *self.participants",
        "self.question, *self.participants",
        _OF_TRANSCRIPT + "test_two_sites_that_were_told_of_different_sums_open_none_together",
    ),
    Mutation(
        "answers after any sums are added up",
        _RELAY,
        "if answer.after != transcript.mark:",
        "if False:",
        _OF_TRANSCRIPT
        + "test_a_sum_that_was_not_released_is_refused[an answer that was made from other sums-local]",
    ),
    Mutation(
        "questions may hold any array",
        "esn_core/messages/question.py",
        'if set(arrays) - {"relayed"}:',
        "if False:",
        _OF_TRANSCRIPT + "test_a_question_that_brings_numbers_is_none[coefficients]",
    ),
    Mutation(
        "transcripts are read unchecked",
        "client/esn_client/site/transcripts.py",
        "hmac.compare_digest(code, self._code(mark, received))",
        "bool(code)",
        _OF_TRANSCRIPT + "test_a_transcript_that_was_changed_on_disk_steers_nothing[a total]",
    ),
    Mutation(
        "exact models take any children",
        "esn_core/protocol/consistency.py",
        "if PHASES[phase.phase].needs]",
        "if PHASES[phase.phase].needs == {'network'}]",
        "tests/core/protocol/test_protocol.py::"
        "test_what_one_site_could_steer_is_not_exact_for_real_children[newton]",
    ),
    Mutation(
        "a band follows the cohort",
        "client/esn_client/site/cohort_bands.py",
        'return (self._directory / protocol_sha256).read_text(encoding="ascii")',
        "raise FileNotFoundError",
        "tests/client/site/test_cohort_bands.py::test_a_band_that_was_said_stands_when_children_come_and_go",
    ),
)


def outcome(mutation: Mutation, tree: Path) -> str:
    """Break a copy of the tree, run the test, mend it; return '' where it failed, else what is wrong."""
    source = tree / mutation.file
    before = source.read_text(encoding="utf-8")
    if before.count(mutation.old) != 1:
        return f"its source is {before.count(mutation.old)} times in {mutation.file}"
    source.write_text(before.replace(mutation.old, mutation.new), encoding="utf-8")
    try:
        paths = os.pathsep.join(str(tree / part) for part in ("", "client", "server"))
        # Bytecode is kept by the time of the source, in seconds: none is written.
        about = {**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
        ran = subprocess.run(command, cwd=tree, env=about, capture_output=True, text=True, check=False)
    finally:
        source.write_text(before, encoding="utf-8")
    if ran.returncode == _FAILED and f"FAILED {mutation.test}" in ran.stdout:
        return ""
    if ran.returncode == 0:
        return f"{mutation.test} passed"
    return f"{mutation.test} did not run:\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"


def _copy_of_the_tree(tree: Path) -> Path:
    for part in _COPIED:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / part, tree / part)
    return tree


def main(names: list[str]) -> int:
    """Run the named mutations, or all; return how many tests did not see theirs."""
    chosen = [mutation for mutation in MUTATIONS if not names or mutation.name in names]
    survived = 0
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(_AT_ONCE) as threads:
        free: SimpleQueue[Path] = SimpleQueue()
        for number in range(_AT_ONCE):
            free.put(_copy_of_the_tree(Path(scratch) / str(number)))

        def in_a_free_tree(mutation: Mutation) -> str:
            tree = free.get()
            try:
                return outcome(mutation, tree)
            finally:
                free.put(tree)

        for mutation, fault in zip(chosen, threads.map(in_a_free_tree, chosen), strict=True):
            survived += bool(fault)
            print(f"{mutation.name}: {fault or 'seen'}", flush=True)
    print(f"{len(chosen) - survived} of {len(chosen)} mutations were seen")
    return survived if chosen else 1


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
