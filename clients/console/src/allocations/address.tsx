import type { Allocation } from '@eclitunnel/sdk';
import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { Copyable } from '../ui/index.js';
import { texts } from './texts.js';

/** An address with its port; IPv6 in brackets. */
function withPort(address: string, port: number): string {
  return `${address.includes(':') ? `[${address}]` : address}:${port}`;
}

/** The public addresses by number: those that a public host with a name leads to. */
export function numericAddresses({ publicHost, publicAddresses, port }: Pick<Allocation, 'publicHost' | 'publicAddresses' | 'port'>): string[] {
  return publicAddresses.filter((address) => address !== publicHost).map((address) => withPort(address, port));
}

/** The address that players enter, to be copied, and below it the same by number: each, or only the first. */
export function Addresses({ allocation, numbers = 'all' }: { allocation: Allocation; numbers?: 'all' | 'first' | 'none' }): ReactNode {
  const t = useText(texts);
  const shown = numericAddresses(allocation).slice(0, { all: undefined, first: 1, none: 0 }[numbers]);
  return (
    <div className="allocations-addresses">
      <Copyable text={allocation.publicAddress} label={t.addressOf(allocation.name || allocation.publicAddress)} />
      {shown.map((address) => <Copyable key={address} text={address} label={t.addressOf(address)} />)}
    </div>
  );
}
