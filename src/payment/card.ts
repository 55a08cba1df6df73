import { digitsOf } from './card-guard.ts'

/**
 * A card on its way to the bank. Number and CVV are private fields, so that neither `JSON.stringify` nor
 * `util.inspect`, and so no log line, error or trace, can show them; `forBank` is the only way out.
 */
export class Card {
  readonly #number: string
  readonly #cvv: string
  readonly brand: string
  readonly expiryMonth: number
  readonly expiryYear: number

  /** `number`: digits only. `brand`: as the card's number says, for instance `visa`. */
  constructor(card: { number: string; cvv: string; brand: string; expiryMonth: number; expiryYear: number }) {
    this.#number = card.number
    this.#cvv = card.cvv
    this.brand = card.brand
    this.expiryMonth = card.expiryMonth
    this.expiryYear = card.expiryYear
  }

  get last4(): string {
    return this.#number.slice(-4)
  }

  /** Whether a text holds the number, whatever stands between its digits. */
  isIn(text: string): boolean {
    return digitsOf(text).includes(this.#number)
  }

  /** The fields of the bank's authorization request. */
  forBank(): { card_number: string; cvv: string; expiry_month: number; expiry_year: number } {
    return {
      card_number: this.#number,
      cvv: this.#cvv,
      expiry_month: this.expiryMonth,
      expiry_year: this.expiryYear,
    }
  }
}
