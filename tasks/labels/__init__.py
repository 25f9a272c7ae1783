"""Label audit: labels that look wrong, replies that do not fit, preference pairs that contradict themselves."""

from tasks.labels.config import IssuePolicy, LabelAuditConfig
from tasks.labels.task import audit_labels, await_review

__all__ = ["IssuePolicy", "LabelAuditConfig", "audit_labels", "await_review"]
