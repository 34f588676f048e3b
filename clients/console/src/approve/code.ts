/** Codes are compared as the panel does it: without case, spaces and dashes. */
export const plain = (code: string): string => code.replace(/[\s-]/g, '').toUpperCase();

/** Whether a code is of a terminal that logs in: that of a device has its letters first. */
export const isLoginCode = (code: string): boolean => /^[2-9]{4}[A-Z]{4}$/.test(plain(code));

/** How a query looks up a code: once, because a wrong one counts as an attempt each time. */
export const once = {
  retry: false,
  staleTime: Infinity,
  gcTime: 0,
  refetchOnWindowFocus: false,
  refetchOnReconnect: false,
} as const;
