import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Account(): ReactNode {
  return <PageHead title="Account" />;
}
