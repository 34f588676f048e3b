// The page of browser.test.ts: what a panel's frontend would show of its tunnels.
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { createClient } from '../../src/index.js';
import {
  TunnelProvider,
  useAllocations,
  useDeleteAllocation,
  useDevices,
  useLiveStatus,
  useTunnelEvents,
} from '../../src/react/index.js';

declare global {
  interface Window {
    /** The names of allocations that events have told of. */
    told: string[];
  }
}
window.told = [];

function tell(event: { type: string; allocation?: { name: string } }): void {
  if (event.type === 'allocation.created') window.told.push(event.allocation?.name ?? '');
}

function Page() {
  const { live, since, asOf } = useLiveStatus();
  const { data: allocations, error } = useAllocations();
  const { data: devices } = useDevices();
  const close = useDeleteAllocation();
  useTunnelEvents(tell);
  return (
    <>
      <p id="live" data-since={since} data-as-of={asOf}>
        {live ? 'live' : 'not live'}
      </p>
      <p id="devices">{devices?.map(({ name }) => name).join(' ')}</p>
      <p id="error">{error?.message}</p>
      <ul>
        {allocations?.map(({ id, name, port }) => (
          <li key={id} id={name}>
            {name} at {port} <button onClick={() => close.mutate(id)}>close</button>
          </li>
        ))}
      </ul>
    </>
  );
}

createRoot(document.getElementById('root') as HTMLElement).render(
  <QueryClientProvider client={new QueryClient()}>
    <TunnelProvider client={createClient()} user="admin">
      <Page />
    </TunnelProvider>
  </QueryClientProvider>,
);
