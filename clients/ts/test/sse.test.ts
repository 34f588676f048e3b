import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Parser, type Frame } from '../src/sse.js';

function parse(...pieces: string[]): Frame[] {
  const parser = new Parser();
  return pieces.flatMap((piece) => parser.push(piece));
}

test.each<[string, string, Frame[]]>([
  ['an event with all fields', 'event: usage\nid: 7\ndata: {}\n\n', [{ event: 'usage', data: '{}', id: '7' }]],
  ['data of several lines', 'data: a\ndata:\ndata:  b\n\n', [{ event: '', data: 'a\n\n b', id: '' }]],
  ['comments, unknown fields, and fields without a colon', ': heartbeat\n\nfoo: 1\nbar\ndata\n\n', [{ event: '', data: '', id: '' }]],
  ['line ends of each kind', 'data: a\r\n\r\ndata: b\r\rdata: c\n\n', ['a', 'b', 'c'].map((data) => ({ event: '', data, id: '' }))],
  ['a byte order mark at the start, and only there', '\ufeffdata: \ufeffa\n\n', [{ event: '', data: '\ufeffa', id: '' }]],
  ['an ID that lasts, is emptied, and one with a NUL', 'id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\nid: 2\0\ndata: d\n\n', [
    { event: '', data: 'a', id: '1' },
    { event: '', data: 'b', id: '1' },
    { event: '', data: 'c', id: '' },
    { event: '', data: 'd', id: '' },
  ]],
  ['an event that is not complete', 'data: a\n', []],
  ['an event without data', 'event: x\nid: 3\n\ndata: a\n\n', [{ event: '', data: 'a', id: '3' }]],
])('the parser takes %s', (_, text, frames) => {
  expect(parse(text)).toEqual(frames);
});

test('the parser does not count an ID before its event has ended', () => {
  const parser = new Parser('5');
  parser.push('id: 6\ndata: a\n');
  expect(parser.lastId).toBe('5');
  parser.push('\n');
  expect(parser.lastId).toBe('6');
});

test('the parser takes a retry time of digits only', () => {
  const parser = new Parser();
  parser.push('retry: 1500\nretry: 2s\nretry: -1\n');
  expect(parser.retryMs).toBe(1500);
});

/** Any text that is likely to have the syntax of a stream. */
const stream = fc
  .array(fc.oneof(fc.constantFrom('data', 'id', 'event', 'retry', ':', ': ', '\n', '\r', '\r\n', '\n\n', '\ufeff', '\0', '7'), fc.string()), {
    maxLength: 60,
  })
  .map((parts) => parts.join(''));

test('the parser gives the same events wherever the text is cut', () => {
  fc.assert(
    fc.property(stream, fc.array(fc.nat(200)), (text, cuts) => {
      const at = [0, ...cuts.map((cut) => cut % (text.length + 1)).sort((a, b) => a - b), text.length];
      expect(parse(...at.slice(1).map((end, i) => text.slice(at[i], end)))).toEqual(parse(text));
    }),
    { numRuns: 2000 },
  );
});

test('the parser gives back what a server writes', () => {
  const line = fc.string().map((text) => text.replace(/[\r\n]/g, ''));
  const frame = fc.record({
    event: line,
    data: fc.array(line, { minLength: 1 }).map((lines) => lines.join('\n')),
    id: line.map((text) => text.replace(/\0/g, '')),
  });
  fc.assert(
    fc.property(fc.array(frame), fc.constantFrom('\n', '\r', '\r\n'), (frames, end) => {
      const text = frames
        .map(({ event, data, id }) => [`event: ${event}`, `id: ${id}`, ...data.split('\n').map((d) => `data: ${d}`), ': x', '', ''].join(end))
        .join('');
      // One more character, so that a final carriage return is known to end a line.
      expect(parse(text, ':')).toEqual(frames);
    }),
    { numRuns: 2000 },
  );
});
