"""The trace as JSON (`podwire.trace/v1`): absent is null, lists are in order, no floats."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from podwire.trace.schema import SCHEMA, Result

if TYPE_CHECKING:
    from podwire.trace.flow import Packet
    from podwire.trace.schema import (
        Control,
        EndView,
        Fault,
        Hop,
        Observed,
        Path,
        Question,
        Step,
        Trace,
        Where,
    )

JSON = dict[str, Any]


def document(trace: Trace) -> JSON:
    """The whole answer as plain values."""
    probing = trace.probing
    return {
        "schema": SCHEMA,
        "time": None
        if probing is None
        else {"start": probing.start_ns, "end": probing.end_ns, "clock": "realtime"},
        "mode": trace.mode,
        "level": _level(trace),
        "flow": {
            "src": _end(trace.source),
            "dst": _end(trace.destination),
            "protocol": str(trace.flow.protocol),
            "sport": None if trace.flow.port is None else trace.flow.source_port,
            "dport": trace.flow.port,
            "size": trace.flow.length,
            "df": trace.flow.df,
            "cookie": None if probing is None else probing.cookie,
        },
        "result": {
            "disposition": str(trace.disposition),
            "summary": trace.summary,
            "confidence": trace.confidence,
            "steadiness": None if probing is None else probing.steadiness,
            "probes": None
            if probing is None
            else {
                "sent": probing.sent,
                "answered": probing.answered,
                "refused": probing.refused,
                "rttNs": probing.rtt_ns,
            },
            "pathMtu": trace.path_mtu,
            "exitCode": trace.disposition.exit_code,
            "bundle": trace.bundle,
        },
        "faults": [_fault(fault) for fault in trace.faults],
        "traces": [_path(path) for path in trace.paths],
        "arp": [_question(question) for path in trace.paths for question in path.questions],
        "controls": [_control(control) for control in trace.controls],
        "coverage": {
            "taps": None if probing is None else probing.taps,
            "nftTrace": None if probing is None else probing.nft_trace,
            "tracefs": None if probing is None else probing.tracefs,
            "missing": [
                {"what": gap.what, "why": gap.why, "wouldDecide": gap.decides} for gap in trace.gaps
            ],
        },
        "state": {"changedDuringTrace": None if probing is None else probing.changed},
    }


def _level(trace: Trace) -> int:
    """How much was done for it: 0 read a bundle, 1 read states, 2 sent probes, 3 traced kernels."""
    probing = trace.probing
    if probing is None:
        return 0 if trace.mode == "offline" else 1
    return 3 if probing.nft_trace or probing.tracefs else 2


def _question(question: Question) -> JSON:
    delay = None if question.delay_ms is None else question.delay_ms * 1_000_000
    return {
        "asker": question.asker,
        "target": str(question.target),
        "replier": question.replier,
        "mac": question.mac,
        "delayNs": delay if question.took_ns is None else question.took_ns,
        "kind": question.kind,
        "predicted": question.predicted,
        "observed": question.observed,
    }


def _control(control: Control) -> JSON:
    return {
        "kind": str(control.kind),
        "src": str(control.source),
        "dst": str(control.destination),
        "protocol": str(control.flow.protocol),
        "dport": control.flow.port,
        "size": control.flow.length,
        "answered": control.answered,
        "arrived": control.arrived,
        "outcome": control.outcome,
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
        "confidence": fault.confidence,
        "after": fault.after,
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
        else {
            "text": fault.fix.text,
            "command": fault.fix.command,
            "agent": fault.fix.agent,
            "verifiedBy": fault.fix.verified_by,
        },
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
        "result": None if hop.result is None else str(hop.result),
        "predicted": None
        if hop.result is Result.EXTRA
        else {"packet": _packet(hop.packet), "steps": [_step(step) for step in hop.steps]},
        "observed": None if hop.observed is None else _observed(hop.observed),
        "kernel": _kernel(hop),
    }


def _kernel(hop: Hop) -> JSON | None:
    """What the kernel itself told of the packet here."""
    if not hop.ruled and not hop.dropped:
        return None
    return {
        "rules": [
            {
                "family": each.family,
                "table": each.table,
                "chain": each.chain,
                "handle": each.handle,
                "kind": each.kind,
                "verdict": each.verdict,
                "target": each.target,
                "count": each.count,
            }
            for each in hop.ruled
        ],
        "drops": [
            {"reason": each.reason, "function": each.function, "count": each.count}
            for each in hop.dropped
        ],
    }


def _observed(observed: Observed) -> JSON:
    return {
        "packet": None if observed.packet is None else _packet(observed.packet),
        "packetType": observed.packet_type,
        "timestampNs": observed.timestamp_ns,
        "sinceNs": observed.since_ns,
        "count": observed.count,
        "differences": list(observed.differences),
        "source": observed.source,
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
