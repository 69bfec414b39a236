"""Plots of time against size and against workers, as SVG files without any outside resource."""
import os

from inputs import IMGTK, metadata, qemu_img
from measure import next_data, run_once, warm

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 640, 360, 64, 48, 40, 150
COLOURS = ["#1b6ca8", "#d1495b", "#66a182", "#8d6a9f"]


def scale(value, low, high, start, end):
    return start + (value - low) / (high - low or 1) * (end - start)


def ticks(high, count=5):
    """Round steps from 0 to at least `high`."""
    step = 10 ** len(str(int(high / count))) / 10 if high >= count else 10 ** -3
    while step * count < high:
        step *= 2 if str(step).strip("0.")[0] in "15" else 2.5
    return [step * i for i in range(count + 1)]


def svg(title, x_name, y_name, series):
    """series: {name: [(x, y), ...]}; both axes begin at 0 and are linear, so that what grows linearly looks so."""
    xs, ys = ticks(max(x for line in series.values() for x, _ in line)), ticks(max(y for line in series.values() for _, y in line))
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def place(x, y):
        return f"{scale(x, 0, xs[-1], LEFT, right):.1f},{scale(y, 0, ys[-1], bottom, TOP):.1f}"

    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
           f'<text x="{LEFT}" y="20" font-size="15">{title}</text>',
           f'<text x="{right}" y="{HEIGHT - 8}" text-anchor="end">{x_name}</text>',
           f'<text x="{LEFT - 56}" y="{TOP - 8}">{y_name}</text>']
    for x in xs:
        out.append(f'<text x="{scale(x, 0, xs[-1], LEFT, right):.1f}" y="{bottom + 16}" text-anchor="middle">{x:g}</text>')
    for y in ys:
        at = scale(y, 0, ys[-1], bottom, TOP)
        out.append(f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:g}</text>')
    for number, (name, line) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        out.append(f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{" ".join(place(*p) for p in line)}"/>')
        out += [f'<circle r="3" fill="{colour}" cx="{place(*p).split(",")[0]}" cy="{place(*p).split(",")[1]}"/>' for p in line]
        out.append(f'<text x="{right + 10}" y="{TOP + 12 + 18 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*out, "</svg>"]) + "\n"


def fastest(command, folder, runs, inputs=()):
    """The shortest of some runs: what the job takes when nothing else disturbs it."""
    warm(command, inputs)
    return min(run_once(command, folder / "plot.out", folder)[0] for _ in range(runs))


def against_metadata(folder, quick):
    """map and conversion of images that have all their tables and no data."""
    series = {"imgtk map": [], "imgtk to qcow2": [], "qemu-img map": []}
    for gib in (64, 128, 256) if quick else (256, 512, 1024, 2048, 4096):
        path = folder / f"metadata{gib}g.qcow2"
        if not path.exists():
            metadata(path, f"{gib}G")
        series["imgtk map"].append((gib, fastest(f"{IMGTK} map --output=json {path}", folder, 3)))
        series["imgtk to qcow2"].append((gib, fastest(f"{IMGTK} convert --no-sync -O qcow2 {path} {{out}}", folder, 3)))
        if gib <= 1024:
            series["qemu-img map"].append((gib, fastest(f"qemu-img map --output=json {path}", folder, 1)))
        path.unlink()
    return svg("Images with all tables, no data", "GiB", "seconds", series)


def cuts(path, parts):
    """Up to which offset, in whole clusters, the file holds one, two ... of so many parts of its data, and their bytes."""
    runs, at = [], 0
    with open(path, "rb") as file:
        while (start := next_data(file, at)) is not None:
            at = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            runs.append((start, at - start))
    total, before, found = sum(length for _, length in runs), 0, []
    for start, length in runs:
        while len(found) < parts and (wanted := total * (len(found) + 1) // parts) <= before + length:
            found.append(((start + wanted - before) // 65536 * 65536, wanted))
        before += length
    return found


def against_data(inputs, folder, quick):
    """The zlib image cut to parts of its data."""
    series = {"imgtk": [], "qemu-img -W -m 16": []}
    raw, path = folder / "part.raw", folder / "part.qcow2"
    qemu_img("convert", "-O", "raw", inputs["zlib.qcow2"], raw)
    for length, data in cuts(raw, 3 if quick else 6):
        qemu_img("convert", "-c", "-W", "-m", "16", "--image-opts", "-O", "qcow2",
                 f"driver=raw,size={length},file.filename={raw}", path)
        for name, command in (("imgtk", f"{IMGTK} convert --no-sync"), ("qemu-img -W -m 16", "qemu-img convert -W -m 16")):
            series[name].append((data / (1 << 30), fastest(f"{command} -f qcow2 -O raw {path} {{out}}", folder, 3, [path])))
        path.unlink()
    raw.unlink()
    return svg("zlib qcow2 to raw", "GiB of data", "seconds", series)


def against_workers(inputs, folder, quick):
    jobs = {"zlib to raw": f"-f qcow2 -O raw {inputs['zlib.qcow2']}", "raw to zlib": f"-c -f raw -O qcow2 {inputs['os.raw']}",
            "plain to raw": f"-f qcow2 -O raw {inputs['plain.qcow2']}"}
    series = {name: [(count, fastest(f"{IMGTK} convert --no-sync -m {count} {words} {{out}}", folder, 1 if quick else 2, inputs.values()))
                     for count in (1, 2, 3, 4, 8)] for name, words in jobs.items()}
    return svg("imgtk by workers", "workers", "seconds", series)


def write_plots(inputs, folder, quick, target):
    """One file per group into `target`; their names."""
    target.mkdir(exist_ok=True)
    plots = {"metadata.svg": against_metadata(folder, quick), "data.svg": against_data(inputs, folder, quick),
             "workers.svg": against_workers(inputs, folder, quick)}
    for name, text in plots.items():
        (target / name).write_text(text)
    return list(plots)
