import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Traffic(): ReactNode {
  return <PageHead title="Traffic" />;
}
