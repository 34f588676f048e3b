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
  useCreateWebhook,
  useDeleteAllocation,
  useDeleteDevice,
  useDeleteWebhook,
  useDenyDevice,
  useDevice,
  useDevices,
  useDrainDevice,
  useLiveUsage,
  usePendingDevice,
  useQuota,
  useRegenerateDeviceToken,
  useSession,
  useTestWebhook,
  useUpdateAllocation,
  useUpdateDevice,
  useUpdateWebhook,
  useUsage,
  useWebhookDeliveries,
  useWebhooks,
} from './hooks.js';
export { TunnelProvider, useLiveStatus, useTunnelClient, useTunnelEvents, type TunnelProviderProps } from './provider.js';
export { tunnelKeys, tunnelQueries } from './queries.js';
