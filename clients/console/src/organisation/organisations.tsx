import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Organisations(): ReactNode {
  return <PageHead title="Organisations" />;
}
