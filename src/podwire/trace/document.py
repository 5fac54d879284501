"""The trace as JSON (`podwire.trace/v1`): absent is null, lists are in order, no floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.trace.schema import SCHEMA

if TYPE_CHECKING:
    from podwire.trace.flow import Packet
    from podwire.trace.schema import EndView, Fault, Hop, Path, Step, Trace, Where

JSON = dict[str, Any]


def document(trace: Trace) -> JSON:
    """The whole answer as plain values."""
    return {
        "schema": SCHEMA,
        "mode": "live",
        "level": 1,
        "flow": {
            "src": _end(trace.source),
            "dst": _end(trace.destination),
            "protocol": str(trace.flow.protocol),
            "sport": None if trace.flow.port is None else trace.flow.source_port,
            "dport": trace.flow.port,
            "size": trace.flow.length,
            "df": trace.flow.df,
            "cookie": None,
        },
        "result": {
            "disposition": str(trace.disposition),
            "summary": trace.summary,
            "confidence": trace.confidence,
            "steadiness": None,
            "pathMtu": trace.path_mtu,
            "exitCode": trace.disposition.exit_code,
        },
        "faults": [_fault(fault) for fault in trace.faults],
        "traces": [_path(path) for path in trace.paths],
        "arp": [
            {
                "asker": question.asker,
                "target": str(question.target),
                "replier": question.replier,
                "mac": question.mac,
                "delayNs": None if question.delay_ms is None else question.delay_ms * 1_000_000,
                "kind": question.kind,
                "predicted": question.predicted,
                "observed": None,
            }
            for path in trace.paths
            for question in path.questions
        ],
        "coverage": {
            "taps": None,
            "nftTrace": None,
            "tracefs": None,
            "missing": [
                {"what": gap.what, "why": gap.why, "wouldDecide": gap.decides} for gap in trace.gaps
            ],
        },
    }


def _end(end: EndView) -> JSON:
    return {
        "kind": end.kind,
        "namespace": end.namespace,
        "pod": end.pod,
        "node": end.node,
        "netns": end.netns,
        "interface": end.interface,
        "ip": None if end.ip is None else str(end.ip),
    }


def _where(where: Where) -> JSON:
    return {"node": where.node, "netns": where.netns, "interface": where.interface}


def _fault(fault: Fault) -> JSON:
    return {
        "id": fault.id,
        "number": fault.number,
        "severity": fault.severity,
        "where": _where(fault.where),
        "sentence": fault.sentence,
        "evidence": [
            {
                "kind": each.kind,
                "ns": each.ns,
                "key": each.key,
                "value": each.value,
                "expected": each.expected,
            }
            for each in fault.evidence
        ],
        "fix": None
        if fault.fix is None
        else {"text": fault.fix.text, "command": fault.fix.command, "verifiedBy": None},
        "alsoAffects": [],
        "references": [],
    }


def _path(path: Path) -> JSON:
    return {
        "direction": str(path.direction),
        "branch": path.branch,
        "disposition": str(path.disposition),
        "hops": [_hop(index, hop) for index, hop in enumerate(path.hops)],
    }


def _hop(index: int, hop: Hop) -> JSON:
    return {
        "index": index,
        **_where(hop.where),
        "side": hop.side,
        "position": hop.position,
        "result": None,
        "predicted": {
            "packet": _packet(hop.packet),
            "steps": [_step(step) for step in hop.steps],
        },
        "observed": None,
    }


def _packet(packet: Packet) -> JSON:
    return {
        "src": str(packet.source),
        "dst": str(packet.destination),
        "protocol": str(packet.protocol),
        "sport": packet.source_port,
        "dport": packet.destination_port,
        "ttl": packet.ttl,
        "length": packet.length,
        "df": packet.df,
        "vni": packet.vni,
        "inner": None if packet.inner is None else _packet(packet.inner),
    }


def _step(step: Step) -> JSON:
    return {
        "component": step.component,
        "action": step.action,
        "text": step.text,
        "detail": dict(step.detail),
        "by": dict(step.by),
    }
