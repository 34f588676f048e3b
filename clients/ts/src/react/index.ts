/**
 * Hooks for React that read a panel by TanStack Query and are kept fresh by its events.
 *
 * @packageDocumentation
 */
export {
  useAllocation,
  useAllocations,
  useApproveDevice,
  useBulkAllocations,
  useCloseConnection,
  useConnections,
  useCreateAllocation,
  useCreateDevice,
  useDeleteAllocation,
  useDeleteDevice,
  useDenyDevice,
  useDevice,
  useDevices,
  useDrainDevice,
  useLiveUsage,
  usePendingDevice,
  useQuota,
  useRegenerateDeviceToken,
  useSession,
  useUpdateAllocation,
  useUpdateDevice,
  useUsage,
} from './hooks.js';
export { TunnelProvider, useLiveStatus, useTunnelClient, useTunnelEvents, type TunnelProviderProps } from './provider.js';
export { tunnelKeys, tunnelQueries } from './queries.js';
