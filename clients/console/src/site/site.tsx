import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Site(): ReactNode {
  return <PageHead title="Site" />;
}
