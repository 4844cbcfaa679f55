// The list of targets: each enlarged, with its score, its place and its size.

import { colourOf } from "./view.js";

const MOST = 12, CROP = 21, SIDE = 44;

export class Targets {
  constructor(list, view) {
    this.list = list;
    this.view = view;
  }

  draw(targets) {
    const { list, view } = this;
    while (list.children.length > Math.min(targets.length, MOST)) list.lastChild.remove();
    while (list.children.length < Math.min(targets.length, MOST)) list.append(this.row());
    targets.slice(0, MOST).forEach((target, i) => {
      const row = list.children[i];
      row.target = target;
      const [x1, y1, x2, y2] = target.box, x = (x1 + x2) / 2, y = (y1 + y2) / 2;
      const side = Math.max(CROP, 1.5 * Math.max(x2 - x1, y2 - y1));
      const crop = row.querySelector("canvas").getContext("2d");
      crop.imageSmoothingEnabled = false;
      crop.fillRect(0, 0, 2 * SIDE, 2 * SIDE);
      crop.drawImage(view.picture, x - side / 2, y - side / 2, side, side, 0, 0, 2 * SIDE, 2 * SIDE);
      row.style.setProperty("--own", colourOf(target));
      row.querySelector("b").textContent = target.track == null ? (target.label ?? "target") : `Track ${target.track}`;
      row.querySelector(".score").textContent = target.score.toFixed(2);
      row.querySelector("meter").value = target.score;
      row.querySelector("small").textContent = `${x.toFixed(1)}, ${y.toFixed(1)} · ${(x2 - x1).toFixed(0)}×${(y2 - y1).toFixed(0)} px`;
    });
  }

  row() {
    const row = document.createElement("li");
    const button = row.appendChild(document.createElement("button"));
    button.title = "Look closer";
    const crop = button.appendChild(document.createElement("canvas"));
    crop.width = crop.height = 2 * SIDE;
    for (const [name, kind] of [["b", ""], ["span", "score"], ["meter", ""], ["small", ""]]) {
      button.appendChild(document.createElement(name)).className = kind;
    }
    const mark = (on) => {
      this.view.highlighted = on ? row.target : null;
      this.view.draw();
    };
    button.onpointerenter = button.onfocus = () => mark(true);
    button.onpointerleave = button.onblur = () => mark(false);
    button.onclick = () => {
      const [x1, y1, x2, y2] = row.target.box;
      this.view.lookAt((x1 + x2) / 2, (y1 + y2) / 2, 6);
    };
    return row;
  }
}
