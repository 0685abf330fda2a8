/** Headers are imported as text. */
declare module "*.h" {
  const text: string;
  export default text;
}
