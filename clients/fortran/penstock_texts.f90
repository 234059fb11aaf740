! Texts on their way between Fortran and C; used by penstock.f90 and penstock_fields.f90.
module penstock_texts
  use, intrinsic :: iso_c_binding
  use penstock_c, only: c_strlen
  implicit none
  public

  integer, parameter :: name_length = 128  ! of fields and parameters; the rest is cut off

contains

  function c_text(text)
    character(len=*), intent(in) :: text
    character(kind=c_char) :: c_text(len_trim(text) + 1)
    integer :: i

    do i = 1, len_trim(text)
      c_text(i) = text(i:i)
    end do
    c_text(len_trim(text) + 1) = c_null_char
  end function c_text

  function named(text)
    character(len=*), intent(in) :: text
    character(kind=c_char) :: named(name_length + 1)
    integer :: n

    n = min(len_trim(text), name_length)
    named = c_null_char
    named(:n + 1) = c_text(text(:n))
  end function named

  function f_text(text)
    type(c_ptr), intent(in) :: text
    character(len=:), allocatable :: f_text
    character(kind=c_char), pointer :: bytes(:)
    integer :: i

    call c_f_pointer(text, bytes, [c_strlen(text)])
    allocate (character(len=size(bytes)) :: f_text)
    do i = 1, size(bytes)
      f_text(i:i) = bytes(i)
    end do
  end function f_text
end module penstock_texts
