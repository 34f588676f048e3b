import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Overview(): ReactNode {
  return <PageHead title="Overview" />;
}
