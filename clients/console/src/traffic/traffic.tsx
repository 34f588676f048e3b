import type { ReactNode } from 'react';
import { useText } from '../lib/language.js';
import { PageHead } from '../ui/index.js';
import { texts } from './texts.js';
import { Top } from './top.js';
import { Usage } from './usage-section.js';

/** The page of all traffic that the person may see. */
export default function Traffic(): ReactNode {
  const t = useText(texts);
  return (
    <>
      <PageHead title={t.title} about={t.about} />
      <Usage scope={{}} level={2} />
      <Top />
    </>
  );
}
