// The way to one console, over viewers.rvm.v1: attaches, attaches again when the connection is lost, says whose turn it is to type.
//
//   idle ──want──► connecting ──attached──► live ──lost──► waiting ──► connecting …
//     ▲                                                       │
//     └──────────────── want nothing: the machine does not run, or the page goes

import { get, pause, socket } from "./api.js";

const PROTOCOL = "viewers.rvm.v1";
/** The server says every ten seconds that it is there. */
const SILENCE = 25000;
const FIRST_WAIT = 300;
const LONGEST_WAIT = 5000;
/** Who may not look at a console may be let to, later. */
const REFUSED_WAIT = 60000;
/** Bytes that are shown before the server is told, so that not every letter is answered. */
const TELL_AT = 32 * 1024;
const TELL_AFTER = 50;
/** Bytes of one message: a long paste goes in parts. */
const PIECE = 4096;

export class Link {
  /** told: { state(word, why), attached(facts), turn(types), bytes(data, done) } */
  constructor(path, told) {
    this.path = path;
    this.told = told;
    this.wanted = null;
    this.readOnly = false;
    this.types = false;
    this.socket = null;
    this.unsaid = 0;
  }

  /** The machine runs, so its console is wanted, until `leave`. */
  want() {
    if (this.wanted) return;
    this.wanted = new AbortController();
    this.#keep(this.wanted.signal);
  }

  leave() {
    this.wanted?.abort();
    this.wanted = null;
    this.socket?.close();
    this.types = false;
  }

  /** Comes anew, to type. */
  takeOver() {
    this.readOnly = false;
    this.socket?.close(4000);
  }

  type(text) {
    if (!this.types || this.socket?.readyState !== WebSocket.OPEN) return false;
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    for (let at = 0; at < bytes.length; at += PIECE) this.socket.send(bytes.subarray(at, at + PIECE));
    return true;
  }

  async #keep(signal) {
    let wait = FIRST_WAIT;
    while (!signal.aborted) {
      this.told.state("connecting");
      const stood = await this.#once(signal);
      if (signal.aborted) break;
      this.types = false;
      if (stood) wait = FIRST_WAIT;
      const refused = stood ? null : await this.#refusal(signal);
      this.told.state(refused ? "refused" : "lost", refused);
      await pause(refused ? REFUSED_WAIT : wait, signal);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    }
    this.told.state("idle");
  }

  /** Why this user may not, if that is why: a browser tells nothing of a websocket that it did not get. */
  async #refusal(signal) {
    try {
      await get(this.path, signal);
      return null;
    } catch (error) {
      return error.status === 403 ? error.message : null;
    }
  }

  /** One connection, to its end. Resolves to whether it ever stood. */
  #once(signal) {
    return new Promise((resolve) => {
      let stood = false;
      const over = socket(this.readOnly ? `${this.path}?readOnly=true` : this.path, PROTOCOL);
      this.socket = over;
      let silence = 0;
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => finish(), SILENCE);
      };
      const stop = () => over.close();
      const finish = () => {
        clearTimeout(silence);
        signal.removeEventListener("abort", stop);
        over.onclose = over.onmessage = over.onerror = null;
        over.close();
        resolve(stood);
      };
      signal.addEventListener("abort", stop);
      heard();
      over.onclose = finish;
      over.onmessage = ({ data }) => {
        heard();
        if (typeof data === "string") {
          stood = this.#word(JSON.parse(data)) || stood;
        } else {
          const bytes = new Uint8Array(data);
          this.told.bytes(bytes, () => this.#shown(over, bytes.length));
        }
      };
    });
  }

  /** Hears a word of the server's; whether the console is attached by it. */
  #word(word) {
    if (word.attached) {
      this.types = word.attached.types;
      this.unsaid = 0;
      this.told.attached(word.attached);
      this.told.state("live");
      this.told.turn(this.types);
      return true;
    }
    if (word.types === false) {
      this.types = false;
      // Who comes back after a lost connection does not take what somebody else has.
      this.readOnly = true;
      this.told.turn(false);
    }
    return false;
  }

  #shown(over, bytes) {
    if (over !== this.socket) return;
    this.unsaid += bytes;
    const tell = () => {
      clearTimeout(this.telling);
      this.telling = 0;
      if (this.unsaid === 0 || over.readyState !== WebSocket.OPEN) return;
      over.send(JSON.stringify({ shown: this.unsaid }));
      this.unsaid = 0;
    };
    if (this.unsaid >= TELL_AT) tell();
    else if (!this.telling) this.telling = setTimeout(tell, TELL_AFTER);
  }
}
