// The picture: levels through a palette, enlarged with hard pixels, and marks that keep off what they mark.

const PLAIN = "#69f0a4";
const LARGEST_ZOOM = 24;
const GAP = 5;

// Hues at the golden angle lie far apart for neighbours; snapshots and overlay videos have the same.
export const colourOf = (target) => (target.track == null ? PLAIN : `hsl(${(target.track * 137.508) % 360} 100% 69%)`);

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picture = document.createElement("canvas");
    this.pixels = this.picture.getContext("2d", { willReadFrequently: true });
    this.gray = null;
    this.header = null;
    this.targets = [];
    this.marks = { boxes: true, labels: true, trails: true };
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.highlighted = null;
    this.onzoom = () => {};
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  // `rgb`: 256 triples.
  setPalette(rgb) {
    this.table = new Uint32Array(256);
    const bytes = new Uint8Array(this.table.buffer);
    for (let i = 0; i < 256; i += 1) bytes.set([rgb[3 * i], rgb[3 * i + 1], rgb[3 * i + 2], 255], 4 * i);
    this.colour();
    this.draw();
  }

  async show(header, blob) {
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    if (this.picture.width !== width || this.picture.height !== height) {
      this.picture.width = width;
      this.picture.height = height;
      this.image = new ImageData(width, height);
    }
    this.pixels.drawImage(bitmap, 0, 0);
    bitmap.close();
    const rgba = this.pixels.getImageData(0, 0, width, height).data;
    if (this.gray?.length !== width * height) this.gray = new Uint8Array(width * height);
    for (let i = 0; i < this.gray.length; i += 1) this.gray[i] = rgba[4 * i];
    this.header = header;
    this.colour();
  }

  colour() {
    if (!this.gray || !this.table) return;
    const out = new Uint32Array(this.image.data.buffer);
    for (let i = 0; i < out.length; i += 1) out[i] = this.table[this.gray[i]];
    this.pixels.putImageData(this.image, 0, 0);
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.draw();
  }

  get scale() {
    const { canvas, picture } = this;
    return this.zoom * Math.min(canvas.width / picture.width, canvas.height / picture.height);
  }

  // Frame pixels to canvas pixels, and back.
  place(x, y) {
    const s = this.scale, { canvas, picture, centre } = this;
    return [(x - centre[0] * picture.width) * s + canvas.width / 2, (y - centre[1] * picture.height) * s + canvas.height / 2];
  }

  unplace(x, y) {
    const s = this.scale, { canvas, picture, centre } = this;
    return [(x - canvas.width / 2) / s + centre[0] * picture.width, (y - canvas.height / 2) / s + centre[1] * picture.height];
  }

  draw() {
    const { context, canvas, picture } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.header) return;
    this.settle();
    const s = this.scale, [x, y] = this.place(0, 0);
    context.imageSmoothingEnabled = s < 2;
    context.drawImage(picture, x, y, picture.width * s, picture.height * s);
    context.save();
    context.beginPath();
    context.rect(x, y, picture.width * s, picture.height * s);
    context.clip();
    if (this.marks.trails) this.drawTrails();
    for (const target of this.targets) this.drawTarget(target);
    context.restore();
  }

  drawTrails() {
    const { context } = this, ratio = window.devicePixelRatio || 1;
    context.lineCap = context.lineJoin = "round";
    for (const { track, points } of this.header.trails ?? []) {
      context.strokeStyle = colourOf({ track });
      context.lineWidth = 1.4 * ratio;
      for (let i = 1; i < points.length; i += 1) {
        context.globalAlpha = 0.75 * (i / points.length) ** 1.5;
        context.beginPath();
        context.moveTo(...this.place(...points[i - 1]));
        context.lineTo(...this.place(...points[i]));
        context.stroke();
      }
    }
    context.globalAlpha = 1;
  }

  drawTarget(target) {
    const { context } = this, ratio = window.devicePixelRatio || 1;
    const [x1, y1] = this.place(target.box[0], target.box[1]), [x2, y2] = this.place(target.box[2], target.box[3]);
    const gap = GAP * ratio, left = x1 - gap, top = y1 - gap, right = x2 + gap, bottom = y2 + gap;
    const arm = Math.max(4 * ratio, Math.min(0.28 * Math.min(right - left, bottom - top), 16 * ratio));
    const colour = colourOf(target), wide = target === this.highlighted ? 2.6 : 1.6;
    if (this.marks.boxes) {
      context.beginPath();
      for (const [x, y, dx, dy] of [[left, top, 1, 1], [right, top, -1, 1], [right, bottom, -1, -1], [left, bottom, 1, -1]]) {
        context.moveTo(x + dx * arm, y);
        context.lineTo(x, y);
        context.lineTo(x, y + dy * arm);
      }
      context.lineJoin = "miter";
      context.lineCap = "butt";
      this.stroke(colour, wide * ratio);
    }
    if (this.marks.labels) this.drawLabel(target, colour, right + 4 * ratio, top + 1 * ratio);
  }

  stroke(colour, width) {
    const { context } = this;
    context.strokeStyle = "rgba(0, 0, 0, 0.55)";
    context.lineWidth = width + 2 * (window.devicePixelRatio || 1);
    context.stroke();
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.stroke();
  }

  drawLabel(target, colour, x, y) {
    const { context, canvas } = this, ratio = window.devicePixelRatio || 1;
    const text = target.track == null ? target.score.toFixed(2) : `#${target.track}  ${target.score.toFixed(2)}`;
    context.font = `600 ${11 * ratio}px Inter, system-ui, sans-serif`;
    context.textBaseline = "top";
    const width = context.measureText(text).width;
    const at = Math.min(x, canvas.width - width - 4 * ratio), line = Math.max(y, 3 * ratio);
    context.lineJoin = "round";
    context.lineWidth = 3 * ratio;
    context.strokeStyle = "rgba(0, 0, 0, 0.65)";
    context.strokeText(text, at, line);
    context.fillStyle = colour;
    context.fillText(text, at, line);
  }

  // Zooming and moving.

  settle() {
    this.zoom = Math.min(Math.max(this.zoom, 1), LARGEST_ZOOM);
    const s = this.scale, sides = [[this.canvas.width, this.picture.width], [this.canvas.height, this.picture.height]];
    this.centre = sides.map(([room, side], i) => {
      const half = room / (2 * s * side);
      return half >= 0.5 ? 0.5 : Math.min(Math.max(this.centre[i], half), 1 - half);
    });
    this.canvas.style.touchAction = this.zoom > 1 ? "none" : "pan-y";
  }

  // About a point in canvas pixels; the middle without one.
  zoomBy(factor, x = this.canvas.width / 2, y = this.canvas.height / 2) {
    const [px, py] = this.unplace(x, y);
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), LARGEST_ZOOM);
    const [qx, qy] = this.place(px, py);
    this.moveBy(x - qx, y - qy);
    this.onzoom();
  }

  moveBy(dx, dy) {
    const s = this.scale;
    this.centre[0] -= dx / (s * this.picture.width);
    this.centre[1] -= dy / (s * this.picture.height);
    this.draw();
  }

  lookAt(x, y, zoom) {
    this.zoom = Math.max(this.zoom, zoom);
    this.centre = [x / this.picture.width, y / this.picture.height];
    this.draw();
    this.onzoom();
  }

  whole() {
    this.zoom = 1;
    this.draw();
    this.onzoom();
  }

  listen() {
    const { canvas } = this, fingers = new Map();
    const at = (event) => {
      const { left, top } = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
      return [(event.clientX - left) * ratio, (event.clientY - top) * ratio];
    };
    canvas.addEventListener("wheel", (event) => {
      if (this.zoom === 1 && event.deltaY > 0) return;
      event.preventDefault();
      this.zoomBy(Math.exp(-event.deltaY / 400), ...at(event));
    }, { passive: false });
    canvas.addEventListener("dblclick", (event) => (this.zoom > 1 ? this.whole() : this.zoomBy(4, ...at(event))));
    canvas.addEventListener("pointerdown", (event) => {
      fingers.set(event.pointerId, at(event));
      if (event.pointerType === "mouse") canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!fingers.has(event.pointerId)) return;
      const before = [...fingers.values()];
      const [x, y] = fingers.get(event.pointerId);
      fingers.set(event.pointerId, at(event));
      const after = [...fingers.values()];
      if (after.length === 2) {
        const apart = ([[ax, ay], [bx, by]]) => Math.hypot(ax - bx, ay - by) || 1;
        const [[ax, ay], [bx, by]] = after;
        this.zoomBy(apart(after) / apart(before), (ax + bx) / 2, (ay + by) / 2);
      } else if (this.zoom > 1) {
        this.moveBy(at(event)[0] - x, at(event)[1] - y);
      }
    });
    for (const end of ["pointerup", "pointercancel", "pointerleave"]) canvas.addEventListener(end, ({ pointerId }) => fingers.delete(pointerId));
    canvas.addEventListener("keydown", ({ key }) => {
      const step = 40 * (window.devicePixelRatio || 1);
      const move = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] }[key];
      if (move && this.zoom > 1) this.moveBy(...move);
    });
  }
}
