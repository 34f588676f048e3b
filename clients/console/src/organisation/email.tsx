import type { ReactNode } from 'react';

/** An email address, which a narrow page breaks before its @. */
export function Email({ of: email }: { of: string }): ReactNode {
  const at = email.lastIndexOf('@');
  return (
    <span className="organisation-email">
      {email.slice(0, at)}
      <wbr />
      {email.slice(at)}
    </span>
  );
}
