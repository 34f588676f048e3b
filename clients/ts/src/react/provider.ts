import { useQueryClient } from '@tanstack/react-query';
import { createContext, createElement, useContext, useEffect, useMemo, useSyncExternalStore, type ReactNode } from 'react';
import type { LiveStatus, TunnelClient, TunnelEvent } from '../index.js';
import { keeper } from './apply.js';
import { tunnelQueries } from './queries.js';
import { share } from './share.js';

/** What is known of the stream of events, and who wants its events. */
class Live {
  status: LiveStatus = { live: false, since: Date.now(), asOf: undefined, error: undefined };
  readonly listeners = new Set<() => void>();
  readonly events = new Set<(event: TunnelEvent) => void>();

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  set(status: LiveStatus): void {
    this.status = status;
    for (const listener of this.listeners) listener();
  }
}

interface Tunnel {
  client: TunnelClient;
  queries: ReturnType<typeof tunnelQueries>;
  live: Live;
}

const Context = createContext<Tunnel | undefined>(undefined);

export interface TunnelProviderProps {
  client: TunnelClient;
  children?: ReactNode;
  /**
   * Who is logged in, for instance the user's ID. Tabs with the same panel and user share
   * one stream of events; a user never gets those of another.
   */
  user: string | number;
  /** Whether to follow the stream of events; the default is true. */
  live?: boolean | undefined;
}

/**
 * Provides the hooks with a client, and keeps what they show as the panel's events say.
 * It has to be within a `QueryClientProvider`.
 */
export function TunnelProvider({ client, user, live: follow = true, children }: TunnelProviderProps): ReactNode {
  const queryClient = useQueryClient();
  const tunnel = useMemo(() => ({ client, queries: tunnelQueries(client), live: new Live() }), [client]);
  const { live } = tunnel;

  useEffect(() => {
    if (!follow) return;
    const controller = new AbortController();
    const { apply, refresh } = keeper(client, queryClient);
    share(client, {
      name: `eclitunnel ${client.baseUrl} ${user}`,
      signal: controller.signal,
      onEvent: (event) => {
        apply(event);
        for (const listener of live.events) listener(event);
      },
      onStatus: (status) => {
        // What was read before the stream began may have changed since.
        if (status.live && !live.status.live) refresh();
        live.set(status);
      },
      onGap: refresh,
    });
    return () => {
      controller.abort();
      live.set({ ...live.status, live: false, since: Date.now() });
    };
  }, [client, queryClient, user, follow, live]);

  return createElement(Context.Provider, { value: tunnel }, children);
}

export function useTunnel(): Tunnel {
  const tunnel = useContext(Context);
  if (!tunnel) throw new Error('there is no TunnelProvider around this component');
  return tunnel;
}

/** Returns the client of the `TunnelProvider`. */
export function useTunnelClient(): TunnelClient {
  return useTunnel().client;
}

/**
 * Returns whether what the hooks show is kept fresh by events now, since when, and as of
 * when it is true.
 */
export function useLiveStatus(): LiveStatus {
  const { live } = useTunnel();
  const get = (): LiveStatus => live.status;
  return useSyncExternalStore(live.subscribe, get, get);
}

/** Like {@link useLiveStatus}, for those who need not know the times: they change often. */
export function useIsLive(): boolean {
  const { live } = useTunnel();
  const get = (): boolean => live.status.live;
  return useSyncExternalStore(live.subscribe, get, get);
}

/** Calls a function with each event. It may be a new function on each rendering. */
export function useTunnelEvents(onEvent: (event: TunnelEvent) => void): void {
  const { live } = useTunnel();
  useEffect(() => {
    live.events.add(onEvent);
    return () => void live.events.delete(onEvent);
  }, [live, onEvent]);
}
