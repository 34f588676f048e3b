import { describe, expect, test } from 'vitest';
import { labelsOf, linesOf } from '../src/allocations/label-lines.js';

describe('labels', () => {
  test('are a line for each, sorted', () => {
    expect(linesOf({ season: '3', game: 'minecraft', empty: '' })).toEqual(['empty', 'game=minecraft', 'season=3']);
  });

  test.each([
    ['', {}],
    ['\n  \n', {}],
    ['game=minecraft', { game: 'minecraft' }],
    ['  game = minecraft \r\nnote=a=b, c', { game: 'minecraft', note: 'a=b, c' }],
    ['alone\nwith=', { alone: '', with: '' }],
    ['=x', { '': 'x' }],
  ])('are read from %j', (text, labels) => {
    expect(labelsOf(text)).toEqual(labels);
  });

  test('come back as they were written', () => {
    const labels = { 'managed-by': 'apply', note: 'a = b', empty: '' };
    expect(labelsOf(linesOf(labels).join('\n'))).toEqual(labels);
  });
});
