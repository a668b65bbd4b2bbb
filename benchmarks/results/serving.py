"""The section on serving: metrics of every server, and goals of ours."""

import io
from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

OURS, EMPTY_FASTAPI = "this service", "empty FastAPI"
EMPTY_SERVERS = ("empty ASGI", EMPTY_FASTAPI)
CONNECTIONS = ("1", "16", "64")
TITLES = {
    "digits": "28x28 PNG, a small convolutional network",
    "photos": "256x256 JPEG, a network of about 20 ms",
}
WORKER_PARTS = ("digits", "photographs")
Results = dict[str, Any]


def section(results: Results) -> str:
    """Markdown, from `serving.json`, without benchmarks that were not measured."""
    parts = [_servers(title, results[part]) for part, title in TITLES.items() if part in results]
    goals = "\n".join(["| metric | goal | measured |", "| --- | --- | --- |", *_goals(results)])
    if "bulk" in results:
        parts.append(_bulk(results["bulk"]))
    if "opening" in results.get("start", {}):
        parts.append(_opening(results["start"]["opening"]))
    return "\n\n".join([f"On {results['machine']}.", *parts, goals])


def profile(costs: dict[str, float]) -> str:
    """Markdown, from `serving-profile.json`."""
    lines = [f"| {name} | {1e6 * cost:.0f} |" for name, cost in costs.items()]
    return "\n".join(["| part | µs |", "| --- | --- |", *lines]) if costs else ""


def workers(results: Results) -> str:
    """Markdown, from `workers.json`."""
    if not results:
        return ""
    lines = ["| images | case | requests a second | CPU of a request | USS |", "| --- " * 5 + "|"]
    for name in WORKER_PARTS:
        for case, measured in results[name].items():
            if case == "ratios":
                continue
            uss = ", ".join(f"{each:.0f}" for each in measured["uss_megabytes"])
            cells = [name, case, f"{measured['rate']:.0f}", f"{1000 * measured['cpu']:.2f} ms"]
            lines.append(f"| {' | '.join(cells)} | {uss} MB |")
    lines += ["", "| images | ratio | measured |", "| --- " * 3 + "|"]
    for name in WORKER_PARTS:
        for ratio, value in results[name]["ratios"].items():
            lines.append(f"| {name} | {ratio} | {value:.2f} |")
    load = "shares these cores" if results["load_shares_cores"] else "has other cores"
    return "\n".join([*lines, "", f"On {results['machine']}. The load {load}."])


def soak(results: Results) -> str:
    """Markdown, from `soak.json`."""
    if not results:
        return ""
    probes = results["livez_seconds"]
    good = sum(count for kind, count in results["responses"].items() if kind.startswith("good"))
    minutes = results["memory_mb_by_minute"]
    memory = f"{minutes[2]:.0f} / {minutes[-1]:.0f} MB"
    rows = {
        "connections, seconds": f"{results['connections']}, {results['seconds']:.0f}",
        "responses to good requests": f"{good:,}",
        "wrong responses": results["wrong"],
        "statuses of 500 and above that are not promised": results["unpromised_5xx"],
        "`/livez`: p50 / p99 / slowest": " / ".join(
            f"{1000 * probes[name]:.0f}" for name in ("p50", "p99", "slowest")
        )
        + " ms",
        "new versions, slowest": f"{results['swaps']}, {results['slowest_swap_seconds']:.1f} s",
        "memory in the third minute / in the last": memory,
        "file handles, most / last": f"{results['handles_most']} / {results['handles_last']}",
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["| metric | measured |", "| --- | --- |", *lines])


def density(results: Results) -> str:
    """Markdown, from `density.json`: a table for each detector."""
    return "\n\n".join(_density(bundle, each) for bundle, each in results.items())


def _density(bundle: str, results: Results) -> str:
    sizes = ", ".join(f"{name} {size:.1f} MB" for name, size in results["graphs_mb"].items())
    opened, hot = results["all_open"], results["hot"]
    rows = {
        f"{count} listed: ready, memory, threads": _describe_process(each)
        for count, each in results["start"].items()
    }
    rows |= {
        "200 open: memory, threads": _describe_process(opened).partition(", ")[2],
        "first request, p50 / p99": f"{opened['first_p50']:.2f} / {opened['first_p99']:.2f} s",
        "16 connections to one detector, alone": f"{hot['one of one']:.1f} a second",
        "16 connections to one detector of 200 open": f"{hot['one of many']:.1f} a second",
        "16 connections to 16 detectors of 200 open": f"{hot['sixteen of many']:.1f} a second",
    }
    for name, each in results["mix"].items():
        rows[f"mix of 200, {name}: memory, rate, p99, openings"] = (
            f"{each['pss']:.0f} MB, {each['rate']:.1f} a second, {each['p99']:.2f} s, "
            f"{each['openings']:.0f}"
        )
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join([f"| {bundle}: {sizes} | measured |", "| --- | --- |", *lines])


def _describe_process(process: Results) -> str:
    return f"{process['ready']:.1f} s, {process['pss']:.0f} MB, {process['threads']}"


def draw(results: Results) -> bytes:
    """Draw the requests a second of every server, as a PNG."""
    parts = [part for part in TITLES if part in results]
    figure = Figure(figsize=(9, 3.6 * len(parts)), layout="constrained")
    for part, axes in zip(parts, figure.subplots(len(parts), squeeze=False)[:, 0], strict=True):
        names = [name for name in results[part] if name not in (*EMPTY_SERVERS, "limits")]
        for index, count in enumerate(CONNECTIONS):
            positions = [position + (index - 1) * 0.26 for position in range(len(names))]
            rates = [results[part][name][count]["rate"] for name in names]
            bars = axes.bar(
                positions, rates, 0.24, label=f"{count} connection{'s' if index else ''}"
            )
            axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], fontsize=7)
        axes.set_xticks(range(len(names)), names, fontsize=8)
        axes.set_ylabel("requests a second")
        axes.set_title(TITLES[part], fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _servers(title: str, part: Results) -> str:
    limits = part["limits"]
    runs = ", ".join(
        f"{1e6 * time / int(size):,.0f} µs at {size}" for size, time in limits["session"].items()
    )
    lines = [
        f"### {title}",
        "",
        f"Bare session, an image: {runs}. Pillow: {1e6 * limits['decode']:,.0f} µs.",
        "",
        "| server | requests a second at 1 / 16 / 64 | p50, ms | p99, ms | CPU at 16, µs | ready, s"
        " | PSS, MB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, server in part.items():
        if name != "limits":
            rate, p50, p99 = (
                " / ".join(f"{scale * server[count][metric]:,.{digits}f}" for count in CONNECTIONS)
                for metric, scale, digits in (("rate", 1, 0), ("p50", 1000, 2), ("p99", 1000, 2))
            )
            cpu = f"{1e6 * server['16']['cpu']:,.0f}"
            ready, pss = f"{server['ready']:.2f}", f"{server['pss']:.0f}"
            lines.append(f"| {name} | {rate} | {p50} | {p99} | {cpu} | {ready} | {pss} |")
    return "\n".join(lines)


def _bulk(bulk: Results) -> str:
    ways = [f"{count} {way}" for count in (32, 256) for way in ("npy", "json", "multipart")]
    lines = [
        "### Many images a request",
        "",
        "Images a second of the small network, two requests at a time. This service responds to npy"
        " in npy, the others in JSON. PyTriton takes the binary form of the open inference protocol"
        " instead of npy and multipart.",
        "",
        "| server | " + " | ".join(way.replace(" ", " in ") for way in ways) + " |",
        "| --- |" + " --- |" * len(ways),
    ]
    names = {OURS: f"{OURS}, `anomaly-score`", "encode": f"{OURS}, `encode`"}
    for name in (
        OURS,
        "encode",
        *(other for other in bulk if other not in (OURS, "encode", "limits")),
    ):
        cells = (f"{bulk[name][way]:,.0f}" if way in bulk[name] else "–" for way in ways)
        lines.append(f"| {names.get(name, name)} | {' | '.join(cells)} |")
    for operation, limit in bulk["limits"].items():
        rates = " | ".join(
            f"{int(size) / time:,.0f} | |" for size, time in limit["session"].items()
        )
        lines.append(f"| bare session, `{operation}` | {rates} |")
    return "\n".join(lines)


def _opening(opening: Results) -> str:
    plain, optimised = (
        f"{1000 * each['seconds']:.0f} ms and {each['bytes'] / 1e6:.1f} MB"
        for each in (opening["plain"], opening["optimised"])
    )
    return (
        f"Opening the {opening['graphs']} graphs of the shipped models on one core takes {plain};"
        f" optimised graphs would take {optimised} (decision 15)."
    )


def _goals(results: Results) -> Iterator[str]:
    if "digits" in results:
        yield from _digits(results["digits"])
    if "bulk" in results:
        bulk = results["bulk"]
        for operation, name in (("anomaly-score", OURS), ("encode", "encode")):
            bare = 256 / bulk["limits"][operation]["session"]["256"]
            yield _line(
                f"256 images in npy to `{operation}`: images a second over the bare session's",
                "at least 0.85",
                bulk[name]["256 npy"] / bare,
            )
    if "cores" in results:
        cores = results["cores"]
        bare = max(int(size) / time for size, time in cores["limits"]["session"].items())
        yield _line(
            "256x256 JPEG, 16 connections, both cores: over the bare session",
            "at least 0.95",
            cores["16"]["rate"] / bare,
        )
    if "large" in results:
        ours, whole = (results["large"][name]["1"]["rate"] for name in (OURS, "FastAPI, naive"))
        yield _line(
            "4000x3000 JPEG: over a server that decodes it whole", "at least 2.5", ours / whole
        )
    if "overload" in results:
        normal, many = results["overload"]["64"], results["overload"]["640"]
        yield f"| statuses of a minute at 64 connections | only 200 | {_statuses(normal)} |"
        yield f"| statuses at ten times as many | 200 and 429 | {_statuses(many)} |"
        yield _line(
            "p99 of accepted requests then, over p99 at 64 connections",
            "at most 2",
            many["p99"] / normal["p99"],
        )
    if "start" in results:
        ready = f"{results['start']['ready']:.2f} s"
        yield f"| start to ready with all shipped models | at most 1.5 s | {ready} |"
        yield f"| PSS then | at most 180 MB | {results['start']['pss']:.0f} MB |"


def _digits(part: Results) -> Iterator[str]:
    ours, empty, limits = part[OURS], part[EMPTY_FASTAPI], part["limits"]
    others = (OURS, *EMPTY_SERVERS, "limits")
    peers = {name: server for name, server in part.items() if name not in others}
    for count, goal in zip(
        CONNECTIONS, ("1.4; stretch 1.7", "2.0; stretch 2.4", "1.7; stretch 2.1"), strict=True
    ):
        best = max(peers, key=lambda name: peers[name][count]["rate"])
        ratio = ours[count]["rate"] / peers[best][count]["rate"]
        metric = f"requests a second at {count} over the best peer's ({best})"
        yield _line(metric, f"at least {goal}", ratio)
    batch = limits["session"]["16"] / 16 + limits["decode"]
    yield _line(
        "CPU of a request at 16 beyond decoding and session, over an empty FastAPI endpoint's",
        "at most 1.0",
        (ours["16"]["cpu"] - batch) / empty["16"]["cpu"],
    )
    alone = limits["session"]["1"] + limits["decode"]
    for count in CONNECTIONS[1:]:
        metric = f"requests a second at {count} over those of decoding and a run of one image alone"
        yield _line(metric, "at least 0.65", alone * ours[count]["rate"])
    yield _line(
        "p50 at 1 beyond decoding and session, over an empty FastAPI endpoint's",
        "at most 1.4",
        (ours["1"]["p50"] - alone) / empty["1"]["p50"],
    )
    yield _line("p99 over p50 at 16", "at most 2.5", ours["16"]["p99"] / ours["16"]["p50"])


def _line(metric: str, goal: str, measured: float) -> str:
    return f"| {metric} | {goal} | {measured:.2f} |"


def _statuses(load: Results) -> str:
    return ", ".join(f"{count:,} of {status}" for status, count in sorted(load["statuses"].items()))
