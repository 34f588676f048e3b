import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Password(): ReactNode {
  return <PageHead title="Password" />;
}
