import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Devices(): ReactNode {
  return <PageHead title="Devices" />;
}
