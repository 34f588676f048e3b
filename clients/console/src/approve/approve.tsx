import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Approve(): ReactNode {
  return <PageHead title="Approve" />;
}
