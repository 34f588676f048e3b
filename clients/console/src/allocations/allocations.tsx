import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Allocations(): ReactNode {
  return <PageHead title="Allocations" />;
}
