/** One event of a stream as the server sent it. */
export interface Frame {
  /** The field `event`; empty if there was none. */
  event: string;
  /** The fields `data`, joined by line feeds. */
  data: string;
  /** The last `id` up to this event. */
  id: string;
}

/**
 * Parses a stream of server-sent events (the HTML standard, section 9.2.6), of which the
 * text arrives in pieces that may end anywhere.
 */
export class Parser {
  /** The last ID that an event has ended with; the next connection continues after it. */
  lastId = '';
  /** The time to wait before a new connection, in milliseconds, if the server has said so. */
  retryMs: number | undefined;

  #rest = '';
  #start = true;
  #data: string[] = [];
  #event = '';
  #id: string;

  constructor(lastId = '', retryMs?: number) {
    this.lastId = this.#id = lastId;
    this.retryMs = retryMs;
  }

  /** Takes the next piece, and returns the events that it completes. */
  push(text: string): Frame[] {
    if (this.#start && text) {
      this.#start = false;
      if (text.startsWith('\ufeff')) text = text.slice(1);
    }
    this.#rest += text;
    const frames: Frame[] = [];
    // A carriage return at the end may be the first half of a line's end.
    const lines = this.#rest.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? '';
    for (const line of lines) this.#line(line, frames);
    return frames;
  }

  #line(line: string, frames: Frame[]): void {
    if (line === '') {
      this.lastId = this.#id;
      if (this.#data.length) frames.push({ event: this.#event, data: this.#data.join('\n'), id: this.lastId });
      this.#data = [];
      this.#event = '';
      return;
    }
    const [, field, value = ''] = /^([^:]*)(?:: ?([^]*))?$/.exec(line) ?? [];
    if (field === 'data') this.#data.push(value);
    else if (field === 'event') this.#event = value;
    else if (field === 'id' && !value.includes('\0')) this.#id = value;
    else if (field === 'retry' && /^\d+$/.test(value)) this.retryMs = Number(value);
  }
}
