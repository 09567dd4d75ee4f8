# SPDX-License-Identifier: Apache-2.0
"""The file or document in hand is wrong: SKY-1xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class ArtefactError(SkerryError):
    code = "SKY-1000"
    advice = "Fetch or build the artefact again; if it came from someone else, ask them for a new copy."


class ProjectFileError(ArtefactError):
    code = "SKY-1001"
    template = "{path}:{line}: {problem}"
    advice = "Correct the line and run the command again; the allowed keys are in docs/reference/project-file.md."


class ModelFileError(ArtefactError):
    code = "SKY-1002"
    template = "{path}: not a usable model: {problem}"
    advice = "Skerry takes ONNX files that onnxruntime can load and LiteRT files (.tflite); check the file with the tool that exported it."


class ManifestError(ArtefactError):
    code = "SKY-1003"
    template = "bundle manifest is invalid: {problem}"
    advice = "The bundle was not made by `skerry pack` or was altered; pack or fetch it again."


class DigestMismatch(ArtefactError):
    code = "SKY-1004"
    template = "{name}: digest is {actual}, expected {expected}"
    advice = "The content changed on the way or on disk; fetch it again."


class SelfTestFailed(ArtefactError):
    code = "SKY-1005"
    template = "self-test of variant {variant} failed: {problem}"
    advice = (
        "The variant does not answer like its reference; fix or drop the variant, or widen its tolerance knowingly."
    )


class SchemaError(ArtefactError):
    code = "SKY-1006"
    template = "{document} does not follow its schema at {where}: {problem}"


class ArchiveRefused(ArtefactError):
    code = "SKY-1010"
    template = "archive refused: {entry}: {problem}"
    advice = "Do not use this archive; nothing of it was written."


class LinkInArchive(ArchiveRefused):
    code = "SKY-1011"
    template = "archive refused: {entry} is a link"


class DeviceInArchive(ArchiveRefused):
    code = "SKY-1012"
    template = "archive refused: {entry} is a special file ({kind})"


class PathEscape(ArchiveRefused):
    code = "SKY-1013"
    template = "archive refused: {entry} points outside the bundle"


class BadEntryName(ArchiveRefused):
    code = "SKY-1014"
    template = "archive refused: entry name {entry} is not allowed: {problem}"


class DuplicateEntry(ArchiveRefused):
    code = "SKY-1015"
    template = "archive refused: {entry} appears twice"


class UndeclaredEntry(ArchiveRefused):
    code = "SKY-1016"
    template = "archive refused: {entry} is not named in the manifest"


class MissingEntry(ArchiveRefused):
    code = "SKY-1017"
    template = "archive refused: {entry} is named in the manifest but not there"


class SizeLie(ArchiveRefused):
    code = "SKY-1018"
    template = "archive refused: {entry} has {actual} bytes, declared {declared}"


class ArchiveBomb(ArchiveRefused):
    code = "SKY-1019"
    template = "archive refused: {entry} exceeds the limit of {limit}"


class ExecutableFormat(ArchiveRefused):
    code = "SKY-1020"
    template = "archive refused: {entry} is in a format that can run code ({kind})"
    advice = "Ship ONNX or LiteRT; pickle, joblib, Keras lambdas and TorchScript are never accepted."


class TruncatedArchive(ArchiveRefused):
    code = "SKY-1021"
    template = "archive refused: {entry}: the archive is cut short or damaged"
