import type { ReactNode } from 'react';
import { PageHead } from '../ui/index.js';

export default function Start(): ReactNode {
  return <PageHead title="Start" />;
}
