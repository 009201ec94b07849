"""Every refusal of sqkit: one root, one class per refusal, each with its exit code.

::

    SqkitError
    ├── SettingsError             a variable has a value that cannot be used
    ├── UsageError                a command was called in a way that cannot be meant
    ├── SessionsError             the session table or a user's sessions file
    ├── BarsError                 market data
    │   ├── BarsNotFound          no file for a symbol
    │   ├── BarsFormatRefused     a file that cannot be read as bars
    │   ├── BarsUnusable          bars that were read but must not be used (NaN price, mixed symbols)
    │   ├── WindowEmpty           no bar inside the asked window
    │   └── WindowTooShort        fewer bars than features and labels need
    ├── FeatureSetError
    │   ├── FeatureSetUnknown     no set of that name is registered
    │   ├── FeatureSetRefused     a user's set that does not keep the contract
    │   └── FeatureSetMismatch    the model was trained with another definition
    ├── ModelFileError
    │   ├── ModelFileMissing
    │   ├── PickleRefused         a pickle, under whatever name
    │   ├── ModelFileInvalid      a file that cannot be read, or that scores no row
    │   │   ├── ModelTruncated    not a whole ONNX file
    │   │   ├── ExternalWeights   keeps weights in another file
    │   │   └── ModelTooLarge     no student is that large
    │   ├── ModelPathRefused      a production place, the archive, a path that leads back
    │   │   ├── ModelIsSymlink    a link, or behind one
    │   │   └── ModelOutside      a place outside the models folder
    │   └── ModelMetadataInvalid  ONNX without sqkit's metadata, or with broken metadata
    ├── TrainingError
    │   ├── TrainingDataTooSmall
    │   └── ExportMismatch        the exported file does not score like the trained model
    ├── ChecklistInputError       metrics that are missing, unknown or not finite
    ├── OutputError               a folder that cannot be written, a full disk
    ├── IntegrityError            exit 4: what was seen, changed or mixed must not be judged
    │   ├── WindowOverlap         the validation window overlaps what the model has seen
    │   ├── ArtifactChanged       a stored artifact is missing or differs from its digest
    │   │   ├── ChecklistOfAnother  a checklist that judges another model
    │   │   └── ChecklistEdited   a checklist that is not what was decided, verified and approved
    │   ├── LabelsInFold          soft labels from a teacher that had seen the answers
    │   ├── LedgerBroken          the trial ledger was edited, cut or deleted
    │   ├── HoldoutSealed         sealed days were asked for outside a validation
    │   ├── AuditBroken           the audit log was edited, cut or deleted
    │   ├── ReleaseDamaged        an archived or live release is not the bytes the log names
    │   ├── SignatureRefused      a signature that is missing, wrong or of nobody allowed
    │   └── ApprovalVoid          an approval of other bytes than those that lie there
    ├── PromotionRefused          exit 1: the promoter says no
    │   ├── NotRecommended        the decision is not PROMOTE (exit code of the decision)
    │   ├── ApprovalsMissing      a role has not approved, or somebody rejected
    │   ├── SelfApproval          the model's author, or one person in two roles
    │   ├── BoxOpen               a box that must be ticked is open
    │   ├── PolicyWeaker          decided under a weaker policy than today's
    │   ├── Quarantined           these bytes were rolled back and not released since
    │   ├── AutoRollbackRefused   automatic rollback is disabled, or nothing asks for it
    │   └── SlotMismatch          the slot holds, or is for, another strategy
    ├── SigningFailed             ssh-keygen is missing, the key is locked, the signers file unreadable
    ├── UnknownRole               a role that the policy does not ask for
    ├── ArchiveUnknown            no such release to go back to
    ├── ArchiveAmbiguous          several releases left production that day
    ├── ConflictError             exit 5: something else is there already
    │   ├── DecisionStale         judged against another incumbent or other settings, or too long ago
    │   ├── ApprovalExpired       an approval is older than allowed, or past its date
    │   ├── PinBlocks             a version pin would keep the release from being served
    │   └── ClockBackwards        the clock is behind what was recorded
    └── NotebookError             exit 6
        ├── NotebookFailed        a cell failed, the kernel died or ran out of time
        └── ReportIncomplete      every cell ran but a required value or figure is absent

A message says what is wrong, where, and what to do next. The values that caused it stay
available as ``error.values``.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final


class SqkitError(Exception):
    """Root of everything sqkit refuses.

    Parameters
    ----------
    message
        One line: what is wrong, where, and what to do.
    **values
        The offending values, kept in ``error.values``.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, message: str, **values: Any) -> None:
        super().__init__(message)
        self.message = message
        self.values = values

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.values))


def _rebuild(kind: type[SqkitError], message: str, values: dict[str, Any]) -> SqkitError:
    return kind(message, **values)


class SettingsError(SqkitError):
    """A setting has a value that cannot be used."""


class UsageError(SqkitError):
    """A command was called in a way that cannot be meant."""


class TelemetryNotFound(UsageError):
    """A place holds no telemetry of the kind that was asked for."""


class TelemetryMixed(UsageError):
    """Records of one symbol come from more than one strategy, and none was chosen."""


class SessionsError(SqkitError):
    """The session table, or a user's sessions file, cannot be used."""


class BarsError(SqkitError):
    """Market data that cannot be used."""


class BarsNotFound(BarsError):
    """No bars are stored for a symbol."""


class BarsFormatRefused(BarsError):
    """A file that cannot be read as bars."""


class BarsUnusable(BarsError):
    """Bars that were read but must not be used."""


class WindowEmpty(BarsError):
    """No bar lies inside the asked window."""


class WindowTooShort(BarsError):
    """Fewer bars than features and labels need."""


class FeatureSetError(SqkitError):
    """A feature set cannot be used."""


class FeatureSetUnknown(FeatureSetError):
    """No feature set of that name is registered."""


class FeatureSetRefused(FeatureSetError):
    """A feature set does not keep the contract."""


class FeatureSetMismatch(FeatureSetError):
    """The model was trained with another definition of its feature set."""


class ModelFileError(SqkitError):
    """A model file cannot be used."""


class ModelFileMissing(ModelFileError):
    """There is no model file at that path."""


class PickleRefused(ModelFileError):
    """The file is a pickle; sqkit never unpickles."""


class ModelFileInvalid(ModelFileError):
    """The file is not a usable ONNX model."""


class ModelTruncated(ModelFileInvalid):
    """The file is not a whole ONNX model: a copy that was cut short, or something else."""


class ExternalWeights(ModelFileInvalid):
    """The model keeps weights in another file, which no digest covers."""


class ModelTooLarge(ModelFileInvalid):
    """The file is larger than any student."""


class ModelMetadataInvalid(ModelFileError):
    """The ONNX file carries no metadata of sqkit's, or broken metadata."""


class ModelPathRefused(ModelFileError):
    """A path at which no candidate may lie."""


class ModelIsSymlink(ModelPathRefused):
    """A model is a symlink, or lies behind one."""


class ModelOutside(ModelPathRefused):
    """A model lies outside the models folder."""


class TrainingError(SqkitError):
    """A model cannot be trained."""


class TrainingDataTooSmall(TrainingError):
    """Too few decisive rows, or only one class."""


class ExportMismatch(TrainingError):
    """The exported file does not score like the trained model."""


class ChecklistInputError(SqkitError):
    """Metrics that are missing, unknown or not finite."""


class OutputError(SqkitError):
    """A file or folder cannot be written."""


class IntegrityError(SqkitError):
    """What was seen, changed or mixed must not be judged."""

    exit_code = 4


class WindowOverlap(IntegrityError):
    """The validation window overlaps what the model has already seen."""


class ArtifactChanged(IntegrityError):
    """A stored artifact is missing or differs from its recorded digest."""


class ChecklistOfAnother(ArtifactChanged):
    """The checklist judges another model than the one beside it."""


class ChecklistEdited(ArtifactChanged):
    """The checklist is not what was decided, verified and approved."""


class LabelsInFold(IntegrityError):
    """Soft labels come from a teacher that had seen the rows it labels."""


class LedgerBroken(IntegrityError):
    """The trial ledger was edited, cut short or deleted: how often a window was looked at is not known."""


class HoldoutSealed(IntegrityError):
    """Sealed days were asked for outside a validation."""


class AuditBroken(IntegrityError):
    """The audit log was edited, cut short or deleted: what is live and why is not known for sure."""


class ReleaseDamaged(IntegrityError):
    """An archived or live release is not the bytes that the audit log names."""


class SignatureRefused(IntegrityError):
    """A signature is missing, wrong, or of nobody who is allowed."""


class ApprovalVoid(IntegrityError):
    """An approval of other bytes than those that lie there now."""


class PromotionRefused(SqkitError):
    """The promoter says no."""

    exit_code = 1


class NotRecommended(PromotionRefused):
    """The decision is not PROMOTE; the exit code is the decision's own."""

    def __init__(self, message: str, *, decision_exit_code: int = 1, **values: Any) -> None:
        super().__init__(message, decision_exit_code=decision_exit_code, **values)
        self.exit_code = decision_exit_code  # type: ignore[misc]


class ApprovalsMissing(PromotionRefused):
    """A required role has not approved, or somebody rejected."""


class SelfApproval(PromotionRefused):
    """The model's author approved it, or one person fills two roles."""


class BoxOpen(PromotionRefused):
    """A box of the checklist that must be ticked is open."""


class PolicyWeaker(PromotionRefused):
    """The decision was made under a weaker policy than the one in force."""


class Quarantined(PromotionRefused):
    """These bytes were rolled back and have not been released since."""


class AutoRollbackRefused(PromotionRefused):
    """Automatic rollback is disabled, or no alert asks for it."""


class SlotMismatch(PromotionRefused):
    """The slot holds, or is for, another strategy."""


class SigningFailed(SqkitError):
    """ssh-keygen is missing, the key is locked, or the signers file cannot be used."""


class UnknownRole(SqkitError):
    """A role that the policy does not ask for."""


class ArchiveUnknown(SqkitError):
    """There is no such release to go back to."""


class ArchiveAmbiguous(SqkitError):
    """Several releases fit; the message lists them."""


class ConflictError(SqkitError):
    """Something else is there already, or changed meanwhile."""

    exit_code = 5


class DecisionStale(ConflictError):
    """Judged against another incumbent or other settings, or too long ago."""


class ApprovalExpired(ConflictError):
    """An approval is older than allowed, or past its own date."""


class PinBlocks(ConflictError):
    """A version pin would keep the release from being served."""


class ClockBackwards(ConflictError):
    """The clock is behind what was recorded last."""


class NotebookError(SqkitError):
    """A notebook run did not produce a whole report."""

    exit_code = 6


class NotebookFailed(NotebookError):
    """A cell failed, the kernel died, or a cell ran out of time."""


class ReportIncomplete(NotebookError):
    """Every cell ran, but a required value or figure is absent."""


UNEXPECTED: Final = 70
"""Exit code for a bug of sqkit's own, so that it never looks like a verdict."""


def unexpected(problem: Exception) -> str:
    """One line for an error that is no refusal of sqkit's."""
    said = " ".join(str(problem).split())
    return f"unexpected {type(problem).__name__}: {said}; run again with --debug to see where, and report it"
