// The connection to irforge: it comes back by itself, and a page that is not looked at asks for no frames.

const FIRST_WAIT = 300, LONGEST_WAIT = 4000;

export class Link {
  // `hello`, `state`, `frame(header, blob)` and `down(reason)` are called as things arrive; `frame` may be async.
  constructor(handlers) {
    this.handlers = handlers;
    this.wait = FIRST_WAIT;
    this.owed = 0;
    document.addEventListener("visibilitychange", () => this.settle());
    this.open();
  }

  open() {
    const address = new URL("ws", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this.socket = new WebSocket(address));
    socket.binaryType = "arraybuffer";
    this.owed = 0;
    socket.onmessage = ({ data }) => (typeof data === "string" ? this.text(JSON.parse(data)) : this.binary(data));
    socket.onclose = ({ code }) => {
      this.handlers.down(code === 1001);
      setTimeout(() => this.open(), this.wait);
      this.wait = Math.min(2 * this.wait, LONGEST_WAIT);
    };
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  text(message) {
    this.wait = FIRST_WAIT;
    this.handlers[message.kind](message);
  }

  async binary(data) {
    const socket = this.socket;
    const length = new DataView(data).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const blob = new Blob([new Uint8Array(data, 4 + length)], { type: header.type });
    try {
      await this.handlers.frame(header, blob);
    } finally {
      if (socket === this.socket) {
        this.owed += 1;
        this.settle();
      }
    }
  }

  // The server sends another frame for each one that was seen.
  settle() {
    if (document.hidden) return;
    for (; this.owed > 0; this.owed -= 1) this.send({ kind: "seen" });
  }
}
