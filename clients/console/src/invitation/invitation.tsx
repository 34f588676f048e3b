import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Invitation(): ReactNode {
  return <PageHead title="Invitation" />;
}
