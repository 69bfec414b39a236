/* Draws the maps anew when one looks closer, from more cells than the first picture shows, and tells about the cell
   that is pointed at. svg.c draws the first picture, with the same measures and in the same way. */
"use strict";
(() => {
    const data = JSON.parse(document.getElementById("data").textContent);
    const { columns, rows, width, height, pitch, ribbon, ribbonHeight, tick, labelLimit, layerLooks } = data.measures;
    const MIN_ROWS = 8; /* of the closest view */
    const KINDS = ["data", "compressed", "zero", "hole"];
    const SVG = "http://www.w3.org/2000/svg";
    const svg = document.querySelector("svg");
    const tip = document.getElementById("tip");
    const maps = ["kinds", "layers"].map(name => document.getElementById("map-" + name)).filter(map => map);
    const whole = { start: data.start, length: data.length };
    const detail = expand();
    let view, cells, current = -1;

    /* ---- Cells ---- */

    /* data.cells repeats: how many cells are alike, then the bytes of each kind, then the layer and its bytes. */
    function expand() {
        const all = [], step = 4 + (data.differences ? 1 : 0) + (data.layers.length > 1 ? 2 : 0);
        for (let at = 0; at < data.cells.length; at += step) {
            const [count, ...rest] = data.cells.slice(at, at + step);
            const kinds = rest.slice(0, data.differences ? 4 : 3);
            const [layer, layerBytes] = data.layers.length > 1 ? rest.slice(-2) : [0, 0];
            for (let i = 0; i < count; i++)
                all.push({ kinds, layer, layerBytes });
        }
        return all;
    }

    /* The smallest cells that fit, which are no smaller than those of the detail. */
    function cellSize(length) {
        let size = data.cell;
        while (Math.ceil(length / size) > columns * rows)
            size *= 2;
        return size;
    }

    function sum(parts) {
        const kinds = parts[0].kinds.map((_, kind) => parts.reduce((bytes, part) => bytes + part.kinds[kind], 0));
        const layers = new Map();
        for (const part of parts)
            layers.set(part.layer, (layers.get(part.layer) || 0) + part.layerBytes);
        const [layer, layerBytes] = [...layers].reduce((most, next) => next[1] > most[1] ? next : most);
        return { kinds, layer, layerBytes };
    }

    function gather() {
        const size = cellSize(view.length), each = size / data.cell, out = [];
        const first = (view.start - data.start) / data.cell;
        for (let at = first, start = view.start; start < view.start + view.length; at += each, start += size) {
            const cell = sum(detail.slice(at, at + each));
            cell.start = start;
            cell.length = Math.min(size, data.start + data.length - start);
            out.push(cell);
        }
        return Object.assign(out, { size });
    }

    /* ---- Drawing ---- */

    function heightOf(bytes, length) {
        return bytes === 0 ? 0 : Math.max(1, Math.floor(bytes / length * height + 0.5));
    }

    function fit(heights) {
        while (heights.reduce((total, one) => total + one, 0) > height)
            heights[heights.indexOf(Math.max(...heights))]--;
        return heights;
    }

    function stackOf(map, cell) {
        if (map.id === "map-kinds")
            return fit(cell.kinds.map(bytes => heightOf(bytes, cell.length)));
        const heights = new Array(layerLooks).fill(0);
        heights[Math.min(cell.layer, layerLooks - 1)] = heightOf(cell.layerBytes, cell.length);
        return heights;
    }

    function bar(x, bottom, wide, high) {
        return `M${x} ${bottom}h${wide}v-${high}h-${wide}z`;
    }

    /* Cells that are alike beside each other become one bar. */
    function barsOf(stacks, which) {
        let path = "", run = null;
        const flush = () => {
            if (run)
                path += bar(run.x, run.bottom, run.wide, run.high);
            run = null;
        };
        stacks.forEach((heights, index) => {
            const below = heights.slice(0, which).reduce((total, one) => total + one, 0), high = heights[which];
            const bottom = Math.floor(index / columns) * pitch + height - below;
            if (index % columns === 0 || !run || run.bottom !== bottom || run.high !== high)
                flush();
            if (run)
                run.wide += width;
            else if (high > 0)
                run = { x: index % columns * width, bottom, wide: width, high };
        });
        flush();
        return path;
    }

    function add(map, name, attributes, text) {
        const element = document.createElementNS(SVG, name);
        for (const [key, value] of Object.entries(attributes))
            element.setAttribute(key, value);
        if (text !== undefined)
            element.textContent = text;
        map.append(element);
        return element;
    }

    function drawGround(map) {
        let path = "";
        for (let first = 0; first < cells.length; first += columns)
            path += bar(0, first / columns * pitch + height, Math.min(columns, cells.length - first) * width, height);
        add(map, "path", { class: data.differences ? "same" : "hole", d: path });
    }

    function drawAxis(map) {
        const count = Math.ceil(cells.length / columns), step = count <= 8 ? 1 : count <= 16 ? 2 : 4;
        for (let row = 0; row < count; row += step)
            add(map, "text", { class: "faint axis", x: -8, y: row * pitch + height },
                offsetText(cells[row * columns].start));
    }

    function placeOf(offset) {
        return Math.floor((offset - view.start) / cells.size * width);
    }

    /* A ribbon below the rows of each partition in two alternating tones, and a tick where one begins. */
    function drawPartitions(map) {
        const tones = ["", ""], labels = new Map();
        let ticks = "";
        data.partitions.forEach((part, index) => {
            const end = Math.min(part.start + part.length, view.start + view.length);
            if (end <= view.start || part.start >= view.start + view.length)
                return;
            const first = placeOf(Math.max(part.start, view.start)), last = Math.max(placeOf(end), first + tick);
            const row = Math.floor(first / (columns * width));
            for (let at = first; at < last;) {
                const x = at % (columns * width), wide = Math.min(last - at, columns * width - x);
                tones[index % 2] += bar(x, Math.floor(at / (columns * width)) * pitch + ribbon + ribbonHeight, wide,
                                        ribbonHeight);
                at += wide;
            }
            if (part.start >= view.start)
                ticks += bar(first % (columns * width), row * pitch + ribbon + ribbonHeight, tick,
                             ribbon + ribbonHeight);
            labels.set(row, [...(labels.get(row) || []), part.label]);
        });
        tones.forEach((path, tone) => add(map, "path", { class: "part" + tone, d: path }));
        add(map, "path", { class: "ink", d: ticks });
        for (const [row, names] of labels)
            add(map, "text", { class: "ink label", x: columns * width + 12, y: row * pitch + height },
                shorten(names.join(", "), labelLimit));
    }

    function shorten(text, limit) {
        const characters = [...text];
        return characters.length <= limit ? text : characters.slice(0, limit - 1).join("") + "\u2026";
    }

    function draw() {
        cells = gather();
        for (const map of maps) {
            const stacks = cells.map(cell => stackOf(map, cell));
            const looks = map.id === "map-kinds" ? KINDS.slice(0, stacks[0].length)
                                                 : stacks[0].map((_, layer) => "layer" + layer);
            map.replaceChildren();
            drawGround(map);
            looks.forEach((look, which) => add(map, "path", { class: look, d: barsOf(stacks, which) }));
            drawAxis(map);
            drawPartitions(map);
        }
        document.getElementById("scale").textContent = scaleText();
    }

    /* ---- Text ---- */

    function sizeText(bytes, digits, least) {
        const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
        let unit = 0;
        for (; bytes >= least; unit++)
            bytes /= 1024;
        return Number(bytes.toPrecision(digits)) + " " + units[unit];
    }

    const amountText = bytes => sizeText(bytes, 3, 1000);
    const offsetText = bytes => sizeText(bytes, 5, 1024);

    function scaleText() {
        return `A row is ${offsetText(cells.size * columns)} and a column in it ${offsetText(cells.size)}; ` +
            "its height tells how much of that is filled.";
    }

    function shareText(part, all) {
        const percent = 100 * part / all;
        return part > 0 && percent < 0.1 ? "<0.1%" : Number(percent.toPrecision(3)) + "%";
    }

    function describe(cell) {
        const last = cell.start + cell.length - 1, lines = [];
        lines.push(`${offsetText(cell.start)}, ${amountText(cell.length)}`);
        lines.push(`bytes ${cell.start} to ${last}`);
        lines.push(`sectors ${Math.floor(cell.start / 512)} to ${Math.floor(last / 512)}`);
        const rest = cell.length - cell.kinds.reduce((total, bytes) => total + bytes, 0);
        [...cell.kinds, rest].forEach((bytes, kind) => {
            if (bytes > 0)
                lines.push(`${[...KINDS, "same"][kind]}: ${amountText(bytes)}, ${shareText(bytes, cell.length)}`);
        });
        if (data.layers.length > 1 && cell.layerBytes > 0)
            lines.push(`layer ${cell.layer}: ${data.layers[cell.layer]}`);
        for (const part of data.partitions)
            if (part.start < cell.start + cell.length && cell.start < part.start + part.length)
                lines.push(part.label);
        return lines.join("\n");
    }

    /* ---- The cell that is pointed at ---- */

    function unpoint() {
        current = -1;
        tip.hidden = true;
        document.querySelectorAll(".cursor").forEach(cursor => cursor.remove());
    }

    function point(index, x, y) {
        unpoint();
        if (index < 0 || index >= cells.length)
            return;
        current = index;
        for (const map of maps)
            add(map, "rect", { class: "cursor", x: index % columns * width - 1,
                               y: Math.floor(index / columns) * pitch - 1, width: width + 2, height: height + 2 });
        tip.textContent = describe(cells[index]);
        tip.hidden = false;
        tip.style.left = Math.max(0, Math.min(x + 14, innerWidth - tip.offsetWidth - 8)) + "px";
        tip.style.top = Math.max(0, Math.min(y + 14, innerHeight - tip.offsetHeight - 8)) + "px";
    }

    function indexAt(event) {
        for (const map of maps) {
            const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(map.getScreenCTM().inverse());
            const column = Math.floor(place.x / width), row = Math.floor(place.y / pitch);
            if (column >= 0 && column < columns && row >= 0 && row * columns + column < cells.length)
                return row * columns + column;
        }
        return -1;
    }

    function pointByKey(by) {
        const index = Math.max(0, Math.min(cells.length - 1, current < 0 ? 0 : current + by));
        const corner = new DOMPoint(index % columns * width, Math.floor(index / columns) * pitch);
        const place = corner.matrixTransform(maps[0].getScreenCTM());
        point(index, place.x, place.y);
    }

    /* ---- The view ---- */

    function look(start, length) {
        const least = Math.min(whole.length, data.cell * columns * MIN_ROWS);
        length = Math.max(least, Math.min(whole.length, length));
        const row = cellSize(length) * columns;
        start = whole.start + Math.floor((start - whole.start) / row) * row;
        start = Math.max(whole.start, Math.min(start, whole.start + Math.ceil((whole.length - length) / row) * row));
        view = { start, length: Math.min(length, whole.start + whole.length - start) };
        unpoint();
        draw();
        const closest = view.length <= least;
        document.getElementById("closer").disabled = closest;
        for (const id of ["wider", "whole"])
            document.getElementById(id).disabled = view.length >= whole.length;
        document.getElementById("earlier").disabled = view.start <= whole.start;
        document.getElementById("later").disabled = view.start + view.length >= whole.start + whole.length;
        document.getElementById("view").textContent = `${amountText(view.length)} from ${offsetText(view.start)} on` +
            (closest ? "; closer there is no detail" : "");
    }

    /* Keeps the place that is pointed at, or the middle, where it is. */
    function zoom(factor) {
        const at = current < 0 ? view.start + view.length / 2 : cells[current].start;
        look(at - (at - view.start) * factor, view.length * factor);
    }

    const pan = by => look(view.start + by * view.length, view.length);
    const actions = {
        closer: () => zoom(0.5), wider: () => zoom(2), whole: () => look(whole.start, whole.length),
        earlier: () => pan(-0.5), later: () => pan(0.5),
    };
    const keys = {
        "+": actions.closer, "=": actions.closer, "-": actions.wider, "0": actions.whole, Escape: unpoint,
        PageUp: actions.earlier, PageDown: actions.later,
        ArrowLeft: () => pointByKey(-1), ArrowRight: () => pointByKey(1),
        ArrowUp: () => pointByKey(-columns), ArrowDown: () => pointByKey(columns),
    };

    function listen() {
        for (const [id, action] of Object.entries(actions))
            document.getElementById(id).addEventListener("click", action);
        document.querySelectorAll("[data-partition]").forEach(button => button.addEventListener("click", () => {
            const part = data.partitions[button.dataset.partition];
            look(part.start, part.length + cellSize(part.length) * columns); /* views begin with a row */
        }));
        svg.addEventListener("pointermove", event => point(indexAt(event), event.clientX, event.clientY));
        svg.addEventListener("pointerleave", unpoint);
        svg.addEventListener("dblclick", event => { event.preventDefault(); actions.closer(); });
        svg.addEventListener("wheel", event => {
            if (!event.ctrlKey)
                return; /* the page is scrolled */
            event.preventDefault();
            zoom(event.deltaY < 0 ? 0.5 : 2);
        }, { passive: false });
        svg.addEventListener("keydown", event => {
            if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey)
                return;
            event.preventDefault();
            keys[event.key]();
        });
        addEventListener("hashchange", lookAtHash);
    }

    /* "#START+LENGTH" in the address is a view, in bytes. */
    function lookAtHash() {
        const found = /^#(\d+)\+(\d+)$/.exec(location.hash);
        if (found)
            look(Number(found[1]), Number(found[2]));
        else
            look(whole.start, whole.length);
    }

    if (detail.length === 0)
        return;
    svg.setAttribute("tabindex", "0");
    document.querySelectorAll("[data-script]").forEach(element => { element.hidden = false; });
    listen();
    lookAtHash();
})();
