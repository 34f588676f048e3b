import type { ReactNode } from 'react';
import { useSearch } from 'wouter';
import { useText } from '../lib/language.js';
import { ButtonLink, PageHead } from '../ui/index.js';
import { failedTexts } from './failed-texts.js';

/** The reasons of which the panel's log says more. */
const logged: readonly string[] = ['unreachable', 'refused', 'unavailable', 'failed'];

/** What the panel gives as the ID of a request. Another text in a link is not shown. */
const requestId = /^[A-Za-z0-9._-]{1,64}$/;

/** The page to which the panel leads a browser whose login at an identity provider failed. */
export default function LoginFailed(): ReactNode {
  const t = useText(failedTexts);
  const parameters = new URLSearchParams(useSearch());
  const named = parameters.get('reason') ?? '';
  const reason = Object.hasOwn(t.reasons, named) ? (named as keyof typeof t.reasons) : 'failed';
  const request = parameters.get('request') ?? '';
  const { title, text } = t.reasons[reason];
  return (
    <>
      <PageHead title={title} />
      <p>{text}</p>
      {logged.includes(reason) && requestId.test(request) && <p className="small faint">{t.request(request)}</p>}
      <p>
        <ButtonLink kind="primary" href="/login">
          {t.again}
        </ButtonLink>
      </p>
    </>
  );
}
