"""What stands beside a decision and changes nothing: calibration, bootstrap, warnings; and models asked differently."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from sparring.cli.gate import app
from sparring.errors import CorruptError
from sparring.evaluate.tables import asked_of, decode_verdicts, encode_verdicts, write_verdicts
from sparring.gate.decision import decide
from sparring.gate.policy import load_policy
from sparring.judge.calibration import Calibration, save
from sparring.registry.signing import sign_checkpoint
from sparring.steps.gate import check_record, read_record, run
from sparring.steps.promote import promote
from tests.gate.lines import APPROVED, PROGRESS, Line, ending
from tests.gate.test_correction import calibration, cell
from tests.gate.worlds import JUDGE, promoting

typer_testing = pytest.importorskip("typer.testing")


def _known(sensitivity: float) -> Calibration:
    return calibration(cell(sensitivity, 0.95), cell(0.9, 0.95, label="refused"))


def test_without_a_calibration_the_decision_says_so(line: Line) -> None:
    inputs = line.first()
    record = read_record(line.store, run(APPROVED, line.store, inputs, PROGRESS).decision_key)
    assert record.decision.outcome == "PROMOTE" and record.decision.calibration is None
    assert any("not calibrated" in warning for warning in record.decision.warnings)


def test_the_newest_calibration_of_the_judge_is_pinned_and_decides_nothing(line: Line) -> None:
    digest = save(line.store, _known(0.9))
    record = read_record(line.store, run(APPROVED, line.store, line.first(), PROGRESS).decision_key)
    assert record.decision.calibration == digest and record.decision.outcome == "PROMOTE"
    assert {one["name"] for one in record.decision.corrections} == {"asr", "over_refusal"}
    assert record.decision.resampled is not None and record.decision.resampled.high < 0
    assert check_record(line.store, record) == record.decision
    folder = f"rounds/{line.round:06d}/gate"
    assert "judge's errors" in line.store.get(f"{folder}/decision.md").decode().replace("\\", "")


def test_the_bootstrap_stands_beside_the_t_interval() -> None:
    plain, beside = (
        decide(load_policy("laptop"), *promoting(), first_run=False, resample=resample) for resample in (False, True)
    )
    assert beside.resampled is not None and plain.resampled is None
    assert beside.model_copy(update={"resampled": None}) == plain
    asr = beside.endpoints[0]
    assert abs(beside.resampled.low - asr.low) < 0.02 and abs(beside.resampled.high - asr.high) < 0.02


def test_how_a_model_was_asked_survives_writing_and_reading(line: Line) -> None:
    table = promoting()[0]
    write_verdicts(line.store, "a.parquet", table, asked="decoding/template")
    read = decode_verdicts(line.store.get("a.parquet"))
    assert asked_of(read) == "decoding/template" and asked_of(decode_verdicts(encode_verdicts(table))) == ""
    assert read.equals(decode_verdicts(encode_verdicts(table)))


def test_models_that_were_asked_with_another_template_are_not_compared() -> None:
    candidate, champion, reference = (_asked(table, "d/one") for table in promoting())
    policy = load_policy("laptop")
    assert decide(policy, candidate, champion, reference, first_run=False).outcome == "PROMOTE"
    for changed in ((candidate, _asked(champion, "d/two"), reference), (candidate, champion, _asked(reference, "d/2"))):
        decision = decide(policy, *changed, first_run=False)
        assert decision.outcome == "INVALID" and "another decoding or chat template" in decision.reason


def _asked(table: pa.Table, asked: str) -> pa.Table:
    return decode_verdicts(encode_verdicts(table, asked=asked))


def test_a_calibration_of_another_judge_is_refused_on_the_command_line(tmp_path: Path) -> None:
    for name, table in zip(("new", "old", "first"), promoting(), strict=True):
        (tmp_path / f"{name}.parquet").write_bytes(encode_verdicts(table))
    good, other = _known(0.9), _known(0.9).model_copy(update={"judge": "somebody@1"})
    for known, code in ((good, 0), (other, 2)):
        (tmp_path / "calibration.json").write_text(json.dumps({"digest": "x", **known.model_dump(mode="json")}))
        files = [str(tmp_path / f"{name}.parquet") for name in ("new", "old")]
        rest = ["--reference", str(tmp_path / "first.parquet"), "--policy", "laptop"]
        done = typer_testing.CliRunner().invoke(
            app, [*files, *rest, "--calibration", str(tmp_path / "calibration.json")]
        )
        assert done.exit_code == code, done.output
        assert ("judge's errors" in done.output) == (code == 0)
    assert good.judge == JUDGE


def test_only_what_the_key_signed_is_promoted(line: Line, tmp_path: Path) -> None:
    pytest.importorskip("model_signing", reason="the extra `sign` is not installed")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    secret, public = tmp_path / "key.pem", tmp_path / "key.pub"
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    secret.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    public.write_bytes(private.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
    inputs = line.first()
    decided = ending(inputs, run(APPROVED, line.store, inputs, PROGRESS))
    with pytest.raises(CorruptError, match="signature"):
        promote(line.store, decided, public)
    assert line.store.list("champion/log/") == []
    sign_checkpoint(line.store, decided.gate.candidate, secret)
    assert promote(line.store, decided, public).champion == decided.gate.candidate
    assert line.store.list("champion/cards/") == ["champion/cards/000001.md"]
