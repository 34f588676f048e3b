import { lazy } from 'react';

// The form of a new port comes with the pages of ports.
export const CreatePort = lazy(() => import('../allocations/create.js').then(({ CreatePort }) => ({ default: CreatePort })));
export const PortOpened = lazy(() => import('../allocations/opened.js').then(({ PortOpened }) => ({ default: PortOpened })));
